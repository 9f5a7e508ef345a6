"""The linearized form of a plan: what is trained before it is merged (METHOD §3)."""

from __future__ import annotations

import operator

from torch import fx, nn
from torch.nn import functional as F

from dpcompress.blueprint import (
    Blueprint,
    Illegal,
    MergedSpan,
    Op,
    Plan,
    Sides,
    Span,
    examine,
    input_margin,
)
from dpcompress.errors import IllegalMerge
from dpcompress.graph.activations import free_activation
from dpcompress.graph.capture import Captured, capture
from dpcompress.graph.decay import Decay
from dpcompress.graph.normal_form import free_name, insert_module


def trace(
    model: nn.Module, input_shape: tuple[int, int, int], limits: object = None
) -> Blueprint:
    """The Blueprint of `model` for inputs of `input_shape` = (C, H, W).

    Raises:
        UntraceableModel: the model cannot be captured as a graph; says which module.
        BadInput: the model does not accept an input of this shape.
    """
    return capture(model, input_shape, limits).blueprint  # type: ignore[arg-type]


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
    network.graph.lint()
    network.recompile()
    network.delete_all_unused_submodules()
    network.meta["plan"], network.meta["blueprint"] = plan, captured.blueprint
    return network.train(model.training)


def check_plan(blueprint: Blueprint, plan: Plan) -> list[MergedSpan]:
    """The plan's spans, examined.

    Raises:
        IllegalMerge: the plan does not fit this blueprint; names the span and the reason.
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
    for pair in plan.spans:
        found = examine(blueprint, Span(*pair))
        if isinstance(found, Illegal):
            raise IllegalMerge(
                f"Span {pair[0]} to {pair[1]} cannot become one convolution: "
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

    def linearize_span(self, span: MergedSpan) -> None:
        ops = self.blueprint.ops
        for index in span.region:
            op, node = ops[index], self.nodes[index]
            for source in dict.fromkeys(op.inputs):
                have = span.margins[source]
                need = input_margin(op, ops[source].shape, span.margins[index])
                value = self.nodes[source]
                if source == span.entry:
                    value = self._padded(value, span.margins[source])
                cropped = self._cropped(node, value, have, need)
                if cropped is not self.nodes[source]:
                    node.replace_input_with(self.nodes[source], cropped)
            self._strip_padding(op, node)
            if op.kind in ("act", "pad"):
                self._bypass(index)

    def _padded(self, entry: fx.Node, margin: Sides) -> fx.Node:
        """`entry` with the span's whole padding; made once per span."""
        (top, bottom), (left, right) = margin
        if (top, bottom, left, right) == (0, 0, 0, 0):
            return entry
        amounts = (left, right, top, bottom)
        for user in entry.users:
            if user.meta.get("padding_of_span") == amounts:
                return user
        with self.graph.inserting_after(entry):
            node = self.graph.call_function(F.pad, (entry, amounts))
        node.meta["padding_of_span"] = amounts
        return node

    def _cropped(
        self, user: fx.Node, value: fx.Node, have: Sides, need: Sides
    ) -> fx.Node:
        if have == need:
            return value

        def cut(d: int) -> slice:
            front, back = have[d][0] - need[d][0], have[d][1] - need[d][1]
            return slice(front, -back if back else None)

        window = (slice(None), slice(None), cut(0), cut(1))
        with self.graph.inserting_before(user):
            return self.graph.call_function(operator.getitem, (value, window))

    def _strip_padding(self, op: Op, node: fx.Node) -> None:
        if op.kind == "conv" and op.conv is not None:
            conv = self.network.get_submodule(str(node.target))
            assert isinstance(conv, nn.Conv2d)
            if type(conv) is not nn.Conv2d:
                conv = self._plain_copy(str(node.target), conv)
            conv.padding = (0, 0)
            conv._reversed_padding_repeated_twice = [0, 0, 0, 0]
        elif op.kind == "avgpool" and op.conv is not None:
            with self.graph.inserting_before(node):
                pool = self.graph.call_function(
                    F.avg_pool2d,
                    (node.all_input_nodes[0], op.conv.kernel, op.conv.stride),
                )
            pool.meta["op"] = node.meta["op"]
            node.replace_all_uses_with(pool)
            self.graph.erase_node(node)
            self.nodes[pool.meta["op"]] = pool

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
