"""Finding a Blueprint's ops among the nodes of a graph."""

from __future__ import annotations

from typing import NamedTuple

from torch import fx, nn

from dpcompress.blueprint import Blueprint, Plan
from dpcompress.errors import IllegalMerge


def op_nodes(network: fx.GraphModule) -> dict[int, fx.Node]:
    """Op index → the node that gives the op's value."""
    return {n.meta["op"]: n for n in network.graph.nodes if "op" in n.meta}


def value_nodes(network: fx.GraphModule, blueprint: Blueprint) -> dict[int, fx.Node]:
    """Op index → the node that its readers see: an activation added after it, if any."""
    seen = op_nodes(network)
    for node in network.graph.nodes:
        if "added" in node.meta:
            seen[blueprint.layers[node.meta["added"] - 1].out] = node
    return seen


def take_over(new: fx.Node, old: fx.Node) -> None:
    """Let `new` give the value of the op that `old` gave."""
    new.meta["op"] = old.meta.pop("op")


class Origin(NamedTuple):
    """The blueprint and the plan that a linearized network was made from."""

    blueprint: Blueprint
    plan: Plan


def set_origin(network: fx.GraphModule, origin: Origin) -> None:
    """Mark `network` as the linearized network of a plan."""
    network.meta["origin"] = origin


def forget_origin(network: fx.GraphModule) -> None:
    """Mark `network` as no linearized network any more."""
    network.meta.pop("origin", None)


def origin_of(network: nn.Module) -> Origin:
    """The origin of a linearized network.

    Raises:
        IllegalMerge: `network` is not one.
    """
    meta = network.meta if isinstance(network, fx.GraphModule) else {}
    if "origin" not in meta:
        raise IllegalMerge(
            f"{type(network).__name__} is not a linearized network.",
            "Make it with dpcompress.linearize(model, plan) and load your weights.",
        )
    origin: Origin = meta["origin"]
    return origin
