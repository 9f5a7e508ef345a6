"""Finding a Blueprint's ops in a graph, and the plan of a linearized network."""

from __future__ import annotations

from typing import NamedTuple

from torch import fx, nn

from dpcompress.blueprint import Blueprint, Plan
from dpcompress.errors import IllegalMerge


def op_nodes(network: fx.GraphModule) -> dict[int, fx.Node]:
    """Map each op's index to the node that gives its value."""
    return {n.meta["op"]: n for n in network.graph.nodes if "op" in n.meta}


def value_nodes(network: fx.GraphModule, blueprint: Blueprint) -> dict[int, fx.Node]:
    """Map each op's index to the node that its readers see: the activation that a plan
    added after it, or else the op's own node."""
    seen = op_nodes(network)
    for node in network.graph.nodes:
        if "added" in node.meta:
            seen[blueprint.layers[node.meta["added"] - 1].out] = node
    return seen


def take_over(new: fx.Node, old: fx.Node) -> None:
    """Make `new` the node of the op whose node was `old`."""
    new.meta["op"] = old.meta.pop("op")


class Planned(NamedTuple):
    """The blueprint and the plan that a linearized network was made from."""

    blueprint: Blueprint
    plan: Plan


def set_planned(network: fx.GraphModule, planned: Planned) -> None:
    """Mark `network` as the linearized network of a plan."""
    network.meta["planned"] = planned


def forget_planned(network: fx.GraphModule) -> None:
    """Mark `network` as no linearized network any more."""
    network.meta.pop("planned", None)


def planned_of(network: nn.Module) -> Planned:
    """Return what a linearized network was made from.

    Raises:
        IllegalMerge: `network` is not one.
    """
    meta = network.meta if isinstance(network, fx.GraphModule) else {}
    if "planned" not in meta:
        raise IllegalMerge(
            f"{type(network).__name__} is not a linearized network.",
            "Make it with dpcompress.linearize(model, plan) and load your weights.",
        )
    planned: Planned = meta["planned"]
    return planned
