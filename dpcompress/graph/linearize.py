"""The linearized form of a plan, trained before it is merged (docs/method.md §3)."""

from __future__ import annotations

import operator
from typing import Any

from torch import fx, nn
from torch.nn import functional as F

from dpcompress.blueprint import (
    Blueprint,
    Illegal,
    MergedSpan,
    Op,
    Pair,
    Plan,
    Sides,
    Span,
    examine,
    input_margin,
)
from dpcompress.errors import BadInput, IllegalMerge
from dpcompress.graph.activations import free_activation
from dpcompress.graph.capture import Captured, capture
from dpcompress.graph.decay import Decay
from dpcompress.graph.normal_form import free_name, insert_module
from dpcompress.graph.padding import (
    UNCHANGED,
    Outside,
    Value,
    add_border,
    kept_margin,
    minus,
    outside_conv,
    outside_norm,
    own_padding,
    surround,
)


def linearize(model: nn.Module, plan: Plan, *, decay: bool = False) -> fx.GraphModule:
    """A trainable copy of `model` in which every span of `plan` is affine.

    Removed activations are gone, each merged span's padding is moved in front of it,
    inner skips are cropped to fit, and added activations are in place. The result is a
    plain nn.Module; its parameters keep the names that they have in `model`. Training
    it does not change what can be merged: `merge` takes it at any time.

    Args:
        decay: leave a `graph.Decay` in the place of each removed activation, to be faded
            out while training. The state dict stays the same; `merge` refuses the network
            until every one is the identity.

    Raises:
        IllegalMerge: the plan is for another network, or asks for a span that cannot
            become one convolution.
    """
    if plan.input is None:
        raise IllegalMerge(
            "The plan does not say which input size it is for.",
            "Solve again from tables made by dpcompress, or set the plan's input.",
        )
    captured = capture(model, plan.input)
    spans = check_plan(captured.blueprint, plan)
    rewriter = _Rewriter(captured, decay)
    for span in spans:
        if span.span.length > 1:
            rewriter.linearize_span(span)
    rewriter.set_activations(plan)
    network = captured.network
    network.graph.eliminate_dead_code()
    network.graph.lint()
    network.recompile()
    network.delete_all_unused_submodules()
    network.meta["plan"], network.meta["blueprint"] = plan, captured.blueprint
    return network.train(model.training)


def check_plan(blueprint: Blueprint, plan: Plan) -> list[MergedSpan]:
    """The plan's spans, examined.

    Raises:
        IllegalMerge: the plan does not fit this blueprint; names the span and the reason.
        BadInput: a span is to be run in another way than "merge".
    """
    if plan.boundaries[-1] != blueprint.depth:
        raise IllegalMerge(
            f"The plan is for {plan.boundaries[-1]} layers, the network has "
            f"{blueprint.depth}.",
            "Use the model and the input size that the plan was made for.",
        )
    if plan.blueprint and plan.blueprint != blueprint.digest:
        raise IllegalMerge(
            f"The plan is for another network (blueprint {plan.blueprint}, this one is "
            f"{blueprint.digest}).",
            "Use the model and the input size that the plan was made for.",
        )
    for position in plan.activations:
        added = position in plan.added_activations
        if added == blueprint.has_activation(position):
            fault = "has one already" if added else "has none"
            raise IllegalMerge(
                f"The plan {'adds' if added else 'keeps'} the activation at position "
                f"{position}, where the network {fault}.",
                "Mark added activations, and only those, in added_activations.",
            )
    spans = []
    for choice in plan.choices:
        if choice.way != "merge":
            raise BadInput(
                f"The plan runs layers {choice.start + 1} to {choice.stop} in the way "
                f"{choice.way!r}, which this version does not know.",
                "Solve again, or use the version that wrote the plan.",
            )
        found = examine(blueprint, Span(choice.start, choice.stop))
        if isinstance(found, Illegal):
            raise IllegalMerge(
                f"Span {choice.start} to {choice.stop} cannot become one convolution: "
                f"{found.why}.",
                "See `dpcompress inspect MODEL --spans`.",
            )
        spans.append(found)
    return spans


def op_nodes(network: fx.GraphModule) -> dict[int, fx.Node]:
    """Op index → the node that gives the op's value."""
    return {n.meta["op"]: n for n in network.graph.nodes if "op" in n.meta}


def value_nodes(network: fx.GraphModule) -> dict[int, fx.Node]:
    """Op index → the node that its readers see: an activation added after it, if any."""
    blueprint: Blueprint = network.meta["blueprint"]
    seen = op_nodes(network)
    for node in network.graph.nodes:
        if "added" in node.meta:
            seen[blueprint.layers[node.meta["added"] - 1].out] = node
    return seen


class _Rewriter:
    def __init__(self, captured: Captured, decay: bool) -> None:
        self.network, self.blueprint = captured.network, captured.blueprint
        self.decay = decay
        self.graph = self.network.graph
        self.nodes = op_nodes(self.network)
        self.resized: dict[tuple[fx.Node, tuple[int, ...]], fx.Node] = {}

    def linearize_span(self, span: MergedSpan) -> None:
        ops = self.blueprint.ops
        values = {span.entry: Value(self.nodes[span.entry])}
        for index in span.region:
            op, need = ops[index], span.margins[index]
            sources = [values[i] for i in op.inputs]
            margin = kept_margin(op, sources)
            if margin is None or (index == span.exit and margin != need):
                values[index] = self._widened(index, op, sources, need)
                continue
            if op.kind in ("act", "pad"):
                self._bypass(index)
            elif op.kind == "conv":
                self._set_padding(index, (0, 0))
            with self.graph.inserting_before(self.nodes[index].next):
                outside = self._outside(index, op, [s.outside for s in sources])
            values[index] = Value(self.nodes[index], margin, outside)

    def _outside(self, index: int, op: Op, around: list[Outside]) -> Outside:
        """What pointwise `op` makes of the constants around its inputs."""
        (first, *rest), node, call = around, self.nodes[index], self.graph.call_function
        if op.kind == "conv" and op.conv is not None:
            if first == 0 and not op.conv.bias:
                return 0
            weights = self._tensors(op.name, "weight", "bias")
            return call(outside_conv, (first, *weights, op.conv.groups))
        if op.kind == "norm":
            names = ("running_mean", "running_var", "weight", "bias")
            norm: Any = self.network.get_submodule(op.name)
            return call(outside_norm, (first, norm.eps, *self._tensors(op.name, *names)))
        if op.kind == "act" and first != 0:
            return self.graph.call_module(str(node.target), (first,))
        for other in rest:
            first = call(operator.add, (first, other)) if other != 0 else first
        return first

    def _tensors(self, path: str, *names: str) -> list[Any]:
        module = self.network.get_submodule(path)
        return [
            None
            if getattr(module, name) is None
            else self.graph.get_attr(f"{path}.{name}")
            for name in names
        ]

    def _widened(self, index: int, op: Op, sources: list[Value], margin: Sides) -> Value:
        """Work on tensors that reach beyond their frame."""
        node = self.nodes[index]
        needs = [input_margin(op, self.blueprint.ops[i].shape, margin) for i in op.inputs]
        padding = None
        if op.kind == "conv" and sources[0].outside is not None:
            amounts = minus(needs[0], sources[0].margin)
            shape = self.blueprint.ops[op.inputs[0]].shape
            padding = own_padding(op, shape, sources[0].margin, amounts)
        if padding is None:
            for i, source, need in zip(op.inputs, sources, needs, strict=True):
                given = self._resized(node, source, minus(need, source.margin))
                node.replace_input_with(self.nodes[i], given)
        if op.kind == "conv":
            self._set_padding(index, padding or (0, 0))
            if padding and isinstance(sources[0].outside, fx.Node):
                self._add_border(index, op, sources[0], amounts)
        elif op.kind == "avgpool":
            self._pool_without_padding(index, op)
        elif op.kind in ("act", "pad"):
            self._bypass(index)
        return Value(self.nodes[index], margin, None)

    def _resized(self, user: fx.Node, value: Value, amounts: Sides) -> fx.Node:
        """`value` with its frame widened, or cut where `amounts` are negative."""
        if amounts == UNCHANGED:
            return value.node
        (top, bottom), (left, right) = amounts
        sides = (left, right, top, bottom)
        key = (value.node, sides)
        if key not in self.resized:
            around = (value.outside,) if isinstance(value.outside, fx.Node) else ()
            arguments = (value.node, sides, *around)
            with self.graph.inserting_before(user):
                self.resized[key] = self.graph.call_function(surround, arguments)
        return self.resized[key]

    def _add_border(self, index: int, op: Op, value: Value, amounts: Sides) -> None:
        conv, node = op.conv, self.nodes[index]
        assert conv is not None
        (top, bottom), (left, right) = amounts
        sides = (left, right, top, bottom)
        shape = (conv.stride, conv.dilation, conv.groups)
        users = tuple(node.users)
        with self.graph.inserting_before(node.next):
            (weight,) = self._tensors(op.name, "weight")
            arguments = (node, value.node, sides, value.outside, weight, *shape)
            new = self.graph.call_function(add_border, arguments)
        for user in users:
            user.replace_input_with(node, new)
        new.meta["op"] = node.meta.pop("op")
        self.nodes[index] = new

    def _set_padding(self, index: int, padding: Pair) -> None:
        path = str(self.nodes[index].target)
        conv = self.network.get_submodule(path)
        assert isinstance(conv, nn.Conv2d)
        if type(conv) is not nn.Conv2d:
            conv = self._plain_copy(path, conv)
        conv.padding = padding

    def _pool_without_padding(self, index: int, op: Op) -> None:
        assert op.conv is not None
        node = self.nodes[index]
        with self.graph.inserting_before(node):
            pool = self.graph.call_function(
                F.avg_pool2d, (node.all_input_nodes[0], op.conv.kernel, op.conv.stride)
            )
        pool.meta["op"] = node.meta["op"]
        node.replace_all_uses_with(pool)
        self.graph.erase_node(node)
        self.nodes[index] = pool

    def _plain_copy(self, path: str, conv: nn.Conv2d) -> nn.Conv2d:
        plain = nn.Conv2d(
            conv.in_channels,
            conv.out_channels,
            conv.kernel_size,  # type: ignore[arg-type]
            conv.stride,  # type: ignore[arg-type]
            dilation=conv.dilation,  # type: ignore[arg-type]
            groups=conv.groups,
            bias=conv.bias is not None,
        )
        plain.weight, plain.bias = conv.weight, conv.bias
        self.network.add_submodule(path, plain)
        return plain

    def _bypass(self, index: int) -> None:
        """Make an op the identity, at once or later. Its node stays, so that every op
        keeps one."""
        old = self.nodes[index]
        gone: nn.Module = nn.Identity()
        if self.decay and self.blueprint.ops[index].kind == "act":
            gone = Decay(self.network.get_submodule(str(old.target)))
        self.nodes[index] = insert_module(self.network, old, gone, old.all_input_nodes[0])

    def set_activations(self, plan: Plan) -> None:
        kept, edges = set(plan.activations), set(plan.boundaries)
        for number, layer in enumerate(self.blueprint.layers, 1):
            if number in edges and layer.act is not None and number not in kept:
                self._bypass(layer.act)
        for number in plan.added_activations:
            out = self.nodes[self.blueprint.layers[number - 1].out]
            name = free_name(self.network, f"added_activation_{number}")
            self.network.add_submodule(name, free_activation(self.blueprint))
            with self.graph.inserting_after(out):
                act = self.graph.call_module(name)
            act.meta["added"] = number
            out.replace_all_uses_with(act)
            act.args = (out,)
