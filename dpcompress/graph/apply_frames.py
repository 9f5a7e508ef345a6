"""Applying frames to the graph of a network."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

from torch import fx, nn
from torch.nn import functional as F

from dpcompress.blueprint import Blueprint, Op, Pair, Sides
from dpcompress.graph.border import (
    add_border,
    constant_after_conv,
    constant_after_norm,
    surround,
)
from dpcompress.graph.conv2d import plain_copy
from dpcompress.graph.edit import insert_module
from dpcompress.graph.frames import UNCHANGED, Frame
from dpcompress.graph.nodes import op_nodes, take_over


def apply_frames(
    network: fx.GraphModule, blueprint: Blueprint, frames: Sequence[Frame]
) -> None:
    """Make the ops of one span compute as `frames` say, in place.

    The span's activations must be gone already. Every op keeps a node of its own.
    """
    editor = _Editor(network, blueprint)
    for frame in frames:
        editor.apply(frame)


class _Editor:
    """The editor of one span.

    constants: op → the node of the constant around its tensor, where that is not zero.
    """

    def __init__(self, network: fx.GraphModule, blueprint: Blueprint) -> None:
        self.network, self.graph, self.ops = network, network.graph, blueprint.ops
        self.nodes = op_nodes(network)
        self.constants: dict[int, fx.Node] = {}
        self.resized: dict[tuple[int, Sides], fx.Node] = {}

    def apply(self, frame: Frame) -> None:
        op, node = self.ops[frame.op], self.nodes[frame.op]
        if frame.padding is None:
            for source, amounts in zip(op.inputs, frame.resize, strict=True):
                if amounts != UNCHANGED:
                    given = self._resized(source, amounts, node)
                    node.replace_input_with(self.nodes[source], given)
        if op.kind == "conv":
            padding = frame.padding or (0, 0)
            self._set_padding(str(node.target), padding)
            if padding != (0, 0) and op.inputs[0] in self.constants:
                self._add_border(frame, op)
        elif op.kind == "avgpool":
            self._pool_without_padding(frame.op, op)
        elif op.kind == "pad":
            source_node = node.all_input_nodes[0]
            new = insert_module(self.network, node, nn.Identity(), source_node)
            self.nodes[frame.op] = new
        if frame.outside == "constant":
            with self.graph.inserting_before(self.nodes[frame.op].next):
                self.constants[frame.op] = self._constant(frame.op, op)

    def _resized(self, source: int, amounts: Sides, user: fx.Node) -> fx.Node:
        if (source, amounts) not in self.resized:
            constant = self.constants.get(source)
            arguments = (self.nodes[source], _in_torch_order(amounts), constant)
            with self.graph.inserting_before(user):
                new = self.graph.call_function(surround, arguments)
            self.resized[source, amounts] = new
        return self.resized[source, amounts]

    def _constant(self, index: int, op: Op) -> fx.Node:
        """Apply the pointwise `op` to the constants around its inputs."""
        call = self.graph.call_function
        constants = [self.constants[i] for i in op.inputs if i in self.constants]
        first = constants[0] if constants else 0
        if op.kind == "conv" and op.conv is not None:
            weights = self._tensors(op.name, "weight", "bias")
            return call(constant_after_conv, (first, *weights, op.conv.groups))
        if op.kind == "norm":
            norm: Any = self.network.get_submodule(op.name)
            names = ("running_mean", "running_var", "weight", "bias")
            tensors = self._tensors(op.name, *names)
            return call(constant_after_norm, (first, norm.eps, *tensors))
        total = constants[0]
        if op.kind == "act":  # the identity, perhaps only in the end
            return self.graph.call_module(str(self.nodes[index].target), (total,))
        for other in constants[1:]:
            total = call(operator.add, (total, other))
        return total

    def _tensors(self, path: str, *names: str) -> list[fx.Node | None]:
        module = self.network.get_submodule(path)
        return [
            None
            if getattr(module, name) is None
            else self.graph.get_attr(f"{path}.{name}")
            for name in names
        ]

    def _add_border(self, frame: Frame, op: Op) -> None:
        assert op.conv is not None
        (source,), node = op.inputs, self.nodes[frame.op]
        sides = _in_torch_order(frame.resize[0])
        spec = (op.conv.stride, op.conv.dilation, op.conv.groups)
        users = tuple(node.users)
        with self.graph.inserting_before(node.next):
            (weight,) = self._tensors(op.name, "weight")
            constant = self.constants[source]
            arguments = (node, self.nodes[source], sides, constant, weight, *spec)
            new = self.graph.call_function(add_border, arguments)
        for user in users:
            user.replace_input_with(node, new)
        take_over(new, node)
        self.nodes[frame.op] = new

    def _pool_without_padding(self, index: int, op: Op) -> None:
        assert op.conv is not None
        node = self.nodes[index]
        (source,) = node.all_input_nodes
        with self.graph.inserting_before(node):
            arguments = (source, op.conv.kernel, op.conv.stride)
            pool = self.graph.call_function(F.avg_pool2d, arguments)
        take_over(pool, node)
        node.replace_all_uses_with(pool)
        self.graph.erase_node(node)
        self.nodes[index] = pool

    def _set_padding(self, path: str, padding: Pair) -> None:
        conv = self.network.get_submodule(path)
        assert isinstance(conv, nn.Conv2d)
        if type(conv) is not nn.Conv2d:
            conv = plain_copy(conv)
            self.network.add_submodule(path, conv)
        conv.padding = padding


def _in_torch_order(amounts: Sides) -> tuple[int, int, int, int]:
    """Order amounts as F.pad takes them: (left, right, top, bottom)."""
    (top, bottom), (left, right) = amounts
    return left, right, top, bottom
