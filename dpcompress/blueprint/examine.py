"""Examine a span: can it become one convolution, and which? (docs/method.md §2 and §3)

Inside a span whose activations are removed every tensor is an affine convolution of the
span's input. One walk over the ops follows its shape (kernel, stride, tap spacing,
offset, groups). A span merges if its end stays affine, with one entry and one exit.
Integer arithmetic only.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from dataclasses import dataclass, replace

from dpcompress.blueprint.data import (
    Blueprint,
    ConvSpec,
    Op,
    Pair,
    Sides,
    Span,
)
from dpcompress.blueprint.form import Form


@dataclass(frozen=True)
class MergedSpan:
    """A legal span and the convolution that it becomes.

    entry, exit: op indices; the merged conv reads `entry` and gives what `exit` gave.
    region: the ops that it replaces, in topological order, `exit` last.
    margins: for each op of the region and for `entry`, how far its linearized tensor
        reaches beyond the original frame (may be negative at the far ends).
    tail: ops of the last layer that still run after the merged conv.
    macs, params: of the merged conv; parts_macs, parts_params: of the convs that it
        replaces.
    too_large: why the span is no candidate, "" if it is one.
    """

    span: Span
    entry: int
    exit: int
    region: tuple[int, ...]
    margins: Mapping[int, Sides]
    conv: ConvSpec
    tail: tuple[int, ...]
    macs: int
    params: int
    parts_macs: int
    parts_params: int
    too_large: str = ""

    @property
    def is_candidate(self) -> bool:
        """Whether the span is within the blueprint's limits."""
        return not self.too_large


@dataclass(frozen=True)
class Illegal:
    """A span that cannot become one convolution, and the first reason why."""

    span: Span
    why: str


# The verdicts on spans, by the id() of each blueprint that is still in use.
_verdicts: dict[int, dict[Span, MergedSpan | Illegal]] = {}


def examine(blueprint: Blueprint, span: Span) -> MergedSpan | Illegal:
    """Find the one convolution that `span` becomes if the activations strictly inside it
    are removed, or why there is none.

    >>> from dpcompress.blueprint import find_chains
    >>> conv = ConvSpec(in_channels=8, out_channels=8, kernel=(3, 3))
    >>> ops = (
    ...     Op(name="image", kind="input", shape=(8, 9, 9)),
    ...     Op(name="first", kind="conv", inputs=(0,), shape=(8, 7, 7), conv=conv),
    ...     Op(name="relu", kind="act", inputs=(1,), shape=(8, 7, 7), act="relu"),
    ...     Op(name="second", kind="conv", inputs=(2,), shape=(8, 5, 5), conv=conv),
    ... )
    >>> layers, chains = find_chains(ops)
    >>> network = Blueprint(
    ...     input=(8, 9, 9), output=3, ops=ops, layers=layers, chains=chains
    ... )
    >>> examine(network, Span(0, 2)).conv.kernel
    (5, 5)
    >>> examine(network, Span(0, 3))
    Illegal(span=Span(start=0, stop=3), why='positions run from 0 to 2')
    """
    known = _verdicts.get(id(blueprint))
    if known is None:
        known = _verdicts[id(blueprint)] = {}
        weakref.finalize(blueprint, _verdicts.pop, id(blueprint))
    if span not in known:
        known[span] = _examine(blueprint, span)
    return known[span]


def _examine(blueprint: Blueprint, span: Span) -> MergedSpan | Illegal:
    start, stop = span
    if not 0 <= start < stop <= blueprint.depth:
        return Illegal(span, f"positions run from 0 to {blueprint.depth}")
    chain = blueprint.chain_of(stop)
    if start < chain.start:
        entry = blueprint.ops[chain.entry]
        why = entry.why or "several tensors are needed there"
        return Illegal(span, f"position {chain.start} is a barrier: {entry.name}: {why}")
    forms, blocked = _walk(blueprint, span)
    layer = blueprint.layers[stop - 1]
    if layer.conv not in forms:
        return Illegal(span, blocked[layer.conv])
    why = ""
    for exit in reversed(_exits(blueprint, forms, stop)):
        region = _region(blueprint, forms, exit)
        leak = _leak(blueprint, region, exit)
        if leak is None and (span.length > 1 or _pads_only_its_input(blueprint, region)):
            return _merged(blueprint, span, forms, region)
        why = leak or why
    return Illegal(span, why)


def _exits(blueprint: Blueprint, forms: dict[int, Form], stop: int) -> list[int]:
    """Find the ops at which the merged conv may end: the last conv and those right after
    it that cost nothing to absorb.

    Pads and pools run on their own: a pad of the output is not a pad of the input, and a
    pool would make the conv larger.
    """
    layer = blueprint.layers[stop - 1]
    exits = [layer.conv]
    for index in layer.tail:
        if index not in forms or blueprint.ops[index].kind in ("pad", "avgpool"):
            break
        exits.append(index)
    return exits


def _pads_only_its_input(blueprint: Blueprint, region: tuple[int, ...]) -> bool:
    """Say whether moving all padding to the front changes nothing, as in a single layer
    whose side branches do not pad between two ops of their own."""
    inside = set(region)
    inner = [i for i in region if inside.intersection(blueprint.ops[i].inputs)]
    return not any(_pads(blueprint.ops[i]) for i in inner)


def _pads(op: Op) -> bool:
    return op.padding is not None or (
        op.conv is not None and op.conv.padding != ((0, 0), (0, 0))
    )


def _walk(blueprint: Blueprint, span: Span) -> tuple[dict[int, Form], dict[int, str]]:
    """Follow the span's input: find the forms of all ops that are affine in it, and the
    reasons for which the others that depend on it are not."""
    entry, stop = blueprint.entry(span), span.stop
    last = blueprint.layers[stop - 1].out
    forms = {entry: Form.identity(blueprint.ops[entry].shape[0])}
    blocked: dict[int, str] = {}
    for index in range(entry + 1, last + 1):
        op = blueprint.ops[index]
        bad = next((i for i in op.inputs if i in blocked), None)
        if bad is not None:
            blocked[index] = blocked[bad]
            continue
        if not any(i in forms for i in op.inputs):
            continue
        form = _step(blueprint, span, index, op, forms)
        if isinstance(form, Form):
            forms[index] = form
        else:
            blocked[index] = form
    return forms, blocked


def _step(
    blueprint: Blueprint, span: Span, index: int, op: Op, forms: dict[int, Form]
) -> Form | str:
    """Find the form of an op from those of its inputs, or why it has none."""
    sources = [forms[i] for i in op.inputs if i in forms]
    first = sources[0]
    match op.kind:
        case "conv" | "avgpool" if op.conv is not None:
            return first.then_conv(op.conv)
        case "pad" if op.padding is not None:
            return first.then_pad(op.padding)
        case "norm":
            return replace(first, bias=True)
        case "identity":
            return first
        case "act":
            position = blueprint.position_of.get(index)
            if position is not None and span.start < position < span.stop:
                return first
            return f"the activation {op.name} is not among those that the span removes"
        case "add":
            if len(sources) < len(op.inputs):
                outside = next(i for i in op.inputs if i not in forms)
                return (
                    f"{op.name} adds {blueprint.ops[outside].name}, "
                    "which comes from outside the span"
                )
            total = first
            for other in sources[1:]:
                both = total.plus(other)
                if both is None:
                    return f"{op.name} adds tensors of different stride or channels"
                total = both
            return total
        case _:
            return f"{op.name}: {op.why}"


def _region(blueprint: Blueprint, forms: dict[int, Form], exit: int) -> tuple[int, ...]:
    """Find the ancestors of `exit` that depend on the span's input, `exit` included."""
    entry = next(iter(forms))
    found, todo = set(), [exit]
    while todo:
        index = todo.pop()
        if index == entry or index in found or index not in forms:
            continue
        found.add(index)
        todo.extend(blueprint.ops[index].inputs)
    return tuple(sorted(found))


def _leak(blueprint: Blueprint, region: tuple[int, ...], exit: int) -> str | None:
    """Say why the region has an exit besides `exit`; None if it has no other."""
    inside = set(region)
    for index in region:
        if index == exit:
            continue
        name = blueprint.ops[index].name
        if index == blueprint.output:
            return f"{name} is an output of the network"
        for user in blueprint.consumers[index]:
            if user not in inside:
                return f"{name} is also used by {blueprint.ops[user].name}"
    return None


def _merged(
    blueprint: Blueprint, span: Span, forms: dict[int, Form], region: tuple[int, ...]
) -> MergedSpan | Illegal:
    """Find the convolution that a region without leaks becomes."""
    entry, exit = next(iter(forms)), region[-1]
    form, ops, layer = forms[exit], blueprint.ops, blueprint.layers[span.stop - 1]
    margins = _margins(blueprint, region)
    padding = _padding(span, form, ops[entry].shape, ops[exit].shape, margins[entry])
    if isinstance(padding, Illegal):
        return padding
    conv = ConvSpec(
        in_channels=ops[entry].shape[0],
        out_channels=form.channels,
        kernel=form.kernel,
        stride=form.stride,
        padding=padding,
        dilation=(form.spacing[0] or 1, form.spacing[1] or 1),
        groups=form.groups,
        bias=True,
    )
    parts = [(op.conv, op.shape) for op in (ops[i] for i in region) if op.kind == "conv"]
    parts_macs = sum(c.weights * s[1] * s[2] for c, s in parts if c)
    parts_params = sum(c.weights + c.out_channels * c.bias for c, _ in parts if c)
    height, width = ops[exit].shape[1:]
    merged = MergedSpan(
        span=span,
        entry=entry,
        exit=exit,
        region=region,
        margins=margins,
        conv=conv,
        tail=tuple(i for i in layer.tail if i > exit),
        macs=conv.weights * height * width,
        params=conv.weights + conv.out_channels,
        parts_macs=parts_macs,
        parts_params=parts_params,
    )
    largest = [max(c.extent[d] for c, _ in parts if c) for d in (0, 1)]
    too_large = _too_large(blueprint, merged, ops[entry].shape[1:], largest)
    return replace(merged, too_large=too_large)


def _padding(
    span: Span,
    form: Form,
    in_shape: tuple[int, ...],
    out_shape: tuple[int, ...],
    margin: Sides,
) -> Sides | Illegal:
    """Find the padding of the merged conv from the margin that its input needs."""
    sides = []
    for d in (0, 1):
        front, back = margin[d]
        if front < 0:
            return Illegal(span, "it crops its input")
        if span.length > 1 and back < -in_shape[1 + d]:
            return Illegal(span, "its output sees nothing but padding")
        # Any back padding in [back, back + stride) gives the same output size; a
        # symmetric one needs no separate padding op.
        stride = form.stride[d]
        back = front if back <= front < back + stride else max(back, 0)
        size = (in_shape[1 + d] + front + back - form.extent[d]) // stride + 1
        assert size == out_shape[1 + d], (span, d, size, out_shape)
        sides.append((front, back))
    return sides[0], sides[1]


def _too_large(
    blueprint: Blueprint, merged: MergedSpan, size: tuple[int, ...], largest: list[int]
) -> str:
    """Say why a legal span is no candidate, "" if it is one; a single layer always is.

    A kernel larger than the input is mostly spent on padding; one that is no larger
    than its parts' own kernels is no worse than what was there.
    """
    limits, conv = blueprint.limits, merged.conv
    if merged.span.length == 1:
        return ""
    for d in (0, 1):
        if conv.extent[d] > max(size[d], largest[d]):
            return (
                f"a {conv.extent[0]}x{conv.extent[1]} kernel on a "
                f"{size[0]}x{size[1]} input"
            )
    if merged.macs > limits.max_growth * merged.parts_macs:
        growth = merged.macs / max(merged.parts_macs, 1)
        return f"{growth:.1f} times the MACs, more than {limits.max_growth:g}"
    megabytes = conv.weights * 4 / 1e6
    if megabytes > limits.max_weight_mb:
        return f"{megabytes:.0f} MB of weights, more than {limits.max_weight_mb:g}"
    return ""


def _margins(blueprint: Blueprint, region: tuple[int, ...]) -> dict[int, Sides]:
    """Compute how far each linearized tensor must reach beyond its original frame, for
    all padding to sit at the entry and the exit to come out in its own frame."""
    ops, inside = blueprint.ops, set(region)
    need: dict[int, Sides] = {region[-1]: ((0, 0), (0, 0))}
    for index in reversed(region):
        op = ops[index]
        for source in dict.fromkeys(op.inputs):
            ask = input_margin(op, ops[source].shape, need[index])
            have = need.get(source, ask)
            need[source] = (_larger(have[0], ask[0]), _larger(have[1], ask[1]))
    assert inside <= need.keys()
    return need


def _larger(a: Pair, b: Pair) -> Pair:
    return (max(a[0], b[0]), max(a[1], b[1]))


def input_margin(op: Op, in_shape: tuple[int, ...], out: Sides) -> Sides:
    """Compute the margin that an input of shape `in_shape` must have, for the output of
    `op` to have margin `out`."""

    def ask(d: int) -> Pair:
        front, back = out[d]
        if op.conv is not None:
            k, s, p = op.conv.extent[d], op.conv.stride[d], op.conv.padding[d][0]
            last = s * (op.shape[1 + d] - 1 + back) + k - 1 - p
            return (s * front + p, last - (in_shape[1 + d] - 1))
        if op.padding is not None:
            return (front + op.padding[d][0], back + op.padding[d][1])
        return (front, back)

    return (ask(0), ask(1))
