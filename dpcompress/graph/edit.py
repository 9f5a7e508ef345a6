"""Inserting modules into a traced network."""

from __future__ import annotations

from torch import fx, nn


def insert_module(
    network: fx.GraphModule, node: fx.Node, module: nn.Module, source: fx.Node
) -> fx.Node:
    """Replace `node` by a call of `module` on `source`; return the call."""
    name = free_name(network, node.name)
    network.add_submodule(name, module)
    with network.graph.inserting_before(node):
        new = network.graph.call_module(name, (source,))
    new.meta = dict(node.meta)
    node.replace_all_uses_with(new)
    network.graph.erase_node(node)
    return new


def free_name(network: nn.Module, stem: str) -> str:
    """Return `stem`, with a number if the network has an attribute of that name."""
    name, number = stem, 1
    while hasattr(network, name):
        name, number = f"{stem}_{number}", number + 1
    return name
