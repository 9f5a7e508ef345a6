"""Running parts of a network, from any of its tensors to any others."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from math import prod
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from dpcompress.blueprint import Blueprint

# Values of a network's largest tensor that are computed at a time: 32 MB.
_CHUNK_VALUES = 1 << 23


def chunks(images: Tensor, blueprint: Blueprint) -> Iterator[Tensor]:
    """Split `images` so that memory does not depend on how many there are."""
    largest = max(prod(op.shape) for op in blueprint.ops)
    yield from images.split(max(1, _CHUNK_VALUES // largest))


class Parts:
    """A network whose nodes can be run in parts.

    The network is read at every call, so its modules may change in between.
    """

    def __init__(self, network: fx.GraphModule) -> None:
        self._interpreter = fx.Interpreter(network, garbage_collect_values=False)
        self._nodes = list(network.graph.nodes)
        self.input = next(node for node in self._nodes if node.op == "placeholder")
        self.output: fx.Node = self._nodes[-1].args[0]  # type: ignore[assignment]

    @torch.inference_mode()
    def run(
        self, given: Mapping[fx.Node, Tensor], wanted: Collection[fx.Node]
    ) -> dict[fx.Node, Tensor]:
        """Compute the nodes `wanted` from the values of the nodes `given`."""
        # Values that are not wanted are freed after their last use.
        order = self._between(given.keys(), wanted)
        last = {source: node for node in order for source in node.all_input_nodes}
        values = self._interpreter.env = dict(given)
        for node in order:
            values[node] = self._interpreter.run_node(node)
            for source in node.all_input_nodes:
                if last[source] is node and source not in wanted:
                    values.pop(source, None)
        self._interpreter.env = {}
        return {node: values[node] for node in wanted}

    def frontier(self, changed: fx.Node, entry: fx.Node) -> set[fx.Node]:
        """Find the nodes whose values give the output, together with `changed`.

        They do not depend on `entry`, which `changed` is made from; `entry` itself is one
        of them where something besides `changed` reads it.
        """
        depends = {entry}
        for node in self._nodes:
            if not depends.isdisjoint(node.all_input_nodes):
                depends.add(node)
        needed = self._between({changed}, {self.output})
        sources = {s for node in needed for s in node.all_input_nodes} | {entry}
        return {s for s in sources if s is entry or s not in depends}

    def _between(
        self, given: Collection[fx.Node], wanted: Collection[fx.Node]
    ) -> list[fx.Node]:
        needed, todo = set(), list(wanted)
        while todo:
            node = todo.pop()
            if node not in needed and node not in given:
                needed.add(node)
                todo.extend(node.all_input_nodes)
        return [node for node in self._nodes if node in needed]


def fold_norms(network: fx.GraphModule, blueprint: Blueprint) -> None:
    """Fold every norm that is the only reader of a conv into that conv, in place, for
    eval mode. All nodes stay; the norms become identities."""
    for number, op in enumerate(blueprint.ops):
        if op.kind != "norm" or blueprint.ops[op.inputs[0]].kind != "conv":
            continue
        source = op.inputs[0]
        if blueprint.consumers[source] != (number,) or source == blueprint.output:
            continue
        conv: Any = network.get_submodule(blueprint.ops[source].name)
        norm: Any = network.get_submodule(op.name)
        conv.weight, conv.bias = fuse_conv_bn_weights(
            conv.weight, conv.bias, norm.running_mean, norm.running_var,
            norm.eps, norm.weight, norm.bias,
        )  # fmt: skip
        network.set_submodule(op.name, nn.Identity())
