"""Which spans can become one convolution, why not, and what that convolution looks like.

Inside a span whose activations are removed every tensor is an affine convolution of the
span's input. One walk over the ops follows its shape (kernel, stride, tap spacing,
offset, groups); what stays affine, with one entry and one exit, merges. Integer
arithmetic only. docs/method.md §2 and §3.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from dpcompress.blueprint.data import (
    LINEAR_KINDS,
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
    """A legal span and the convolution it becomes.

    entry, exit: op indices; the merged conv reads `entry` and gives what `exit` gave.
    region: the ops that it replaces, in topological order, `exit` last.
    margins: for each op of the region and for `entry`, how far its linearized tensor
        reaches beyond the original frame (may be negative at the far ends).
    tail: ops of the last layer that still run after the merged conv.
    macs, params: of the merged conv; parts_*: of the convs that it replaces.
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
        return not self.too_large


@dataclass(frozen=True)
class Illegal:
    """A span that cannot become one convolution, and the first reason why."""

    span: Span
    why: str


def examine(blueprint: Blueprint, span: Span) -> MergedSpan | Illegal:
    """Whether `span` = (i, j] can become one convolution when the activations strictly
    between i and j are identity; a legal one says what it becomes and whether it is
    small enough to be a candidate.
    """
    found = blueprint.examined.get(span)
    if found is None:
        found = blueprint.examined[span] = _examine(blueprint, span)
    return found


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
    """Where the merged conv may end: the last conv, or what follows it and costs
    nothing to absorb. Pads and pools there run on their own: a pad of the output is not
    a pad of the input, and a pool absorbed would make the conv larger."""
    layer = blueprint.layers[stop - 1]
    exits = [layer.conv]
    for index in layer.tail:
        if index not in forms or blueprint.ops[index].kind in ("pad", "avgpool"):
            break
        exits.append(index)
    return exits


def _pads_only_its_input(blueprint: Blueprint, region: tuple[int, ...]) -> bool:
    """Whether moving the padding to the front changes nothing: true of a single layer,
    but not where a side branch of it pads between two ops of its own."""
    inside = set(region)
    return not any(
        blueprint.ops[i].padding is not None
        or (conv := blueprint.ops[i].conv) is not None
        and conv.padding != ((0, 0), (0, 0))
        for i in region
        if any(source in inside for source in blueprint.ops[i].inputs)
    )


def _walk(blueprint: Blueprint, span: Span) -> tuple[dict[int, Form], dict[int, str]]:
    """Forms of all ops that are affine in the span's input, reasons for the others that
    depend on it."""
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
    """Ancestors of `exit` that depend on the span's input, `exit` included."""
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
    entry, exit = next(iter(forms)), region[-1]
    form, ops, layer = forms[exit], blueprint.ops, blueprint.layers[span.stop - 1]
    margins = _margins(blueprint, region)
    height, width = ops[entry].shape[1:], ops[exit].shape[1:]
    sides = []
    for d in (0, 1):
        front, back = margins[entry][d]
        if front < 0:
            return Illegal(span, "it crops its input")
        if span.length > 1 and back < -height[d]:
            return Illegal(span, "its output sees nothing but padding")
        # Any back padding in [back, back + stride) gives the same output size; a
        # symmetric one needs no separate padding op.
        stride = form.stride[d]
        back = front if back <= front < back + stride else max(back, 0)
        size = (height[d] + front + back - form.extent[d]) // stride + 1
        assert size == width[d], (span, d, size, width)
        sides.append((front, back))
    conv = ConvSpec(
        in_channels=ops[entry].shape[0],
        out_channels=form.channels,
        kernel=form.kernel,
        stride=form.stride,
        padding=(sides[0], sides[1]),
        dilation=(form.spacing[0] or 1, form.spacing[1] or 1),
        groups=form.groups,
        bias=True,
    )
    parts = [(ops[i].conv, ops[i].shape) for i in region if ops[i].kind == "conv"]
    parts_macs = sum(c.weights * s[1] * s[2] for c, s in parts if c)
    parts_params = sum(c.weights + c.out_channels * c.bias for c, _ in parts if c)
    merged = MergedSpan(
        span=span,
        entry=entry,
        exit=exit,
        region=region,
        margins=margins,
        conv=conv,
        tail=tuple(i for i in layer.tail if i > exit),
        macs=conv.weights * width[0] * width[1],
        params=conv.weights + conv.out_channels,
        parts_macs=parts_macs,
        parts_params=parts_params,
    )
    largest = [max(c.extent[d] for c, _ in parts if c) for d in (0, 1)]
    return replace(merged, too_large=_too_large(blueprint, merged, height, largest))


def _too_large(
    blueprint: Blueprint, merged: MergedSpan, size: tuple[int, ...], largest: list[int]
) -> str:
    """Why a legal span is no candidate; "" if it is one. A single layer always is.

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
    """How far each linearized tensor must reach beyond its original frame, so that all
    padding sits at the entry and the exit comes out in its own frame."""
    ops, inside = blueprint.ops, set(region)
    need: dict[int, Sides] = {region[-1]: ((0, 0), (0, 0))}
    for index in reversed(region):
        op = ops[index]
        for source in dict.fromkeys(op.inputs):
            ask = input_margin(op, ops[source].shape, need[index])
            have = need.get(source, ask)
            need[source] = (_most(have[0], ask[0]), _most(have[1], ask[1]))
    assert inside <= need.keys()
    return need


def _most(a: Pair, b: Pair) -> Pair:
    return (max(a[0], b[0]), max(a[1], b[1]))


def input_margin(op: Op, in_shape: tuple[int, ...], out: Sides) -> Sides:
    """The margin that `op` needs of its input, for its output to have margin `out`."""

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


def spans_of(blueprint: Blueprint) -> Iterator[Span]:
    """Every pair of positions of one chain, in order."""
    for chain in blueprint.chains:
        for start in range(chain.start, chain.stop):
            for stop in range(start + 1, chain.stop + 1):
                yield Span(start, stop)


def legal_spans(blueprint: Blueprint) -> dict[Span, MergedSpan]:
    """All legal spans, candidates or not, in order."""
    found = ((span, examine(blueprint, span)) for span in spans_of(blueprint))
    return {span: merged for span, merged in found if isinstance(merged, MergedSpan)}


def barriers(blueprint: Blueprint) -> tuple[int, ...]:
    """Positions that no legal span passes over, 0 and L included."""
    passed = {p for s in legal_spans(blueprint) for p in range(s.start + 1, s.stop)}
    return tuple(p for p in range(blueprint.depth + 1) if p not in passed)


def candidates(blueprint: Blueprint) -> dict[Span, MergedSpan]:
    """The legal spans within the blueprint's limits, in order."""
    return {s: m for s, m in legal_spans(blueprint).items() if m.is_candidate}


def branch_ops(blueprint: Blueprint, merged: MergedSpan) -> tuple[int, ...]:
    """Ops of linear side branches that feed a residual add in `merged.tail`: they run
    besides the merged conv and their time is charged to this span (docs/method.md §2)."""
    ops, found = blueprint.ops, set()
    chain_ops = blueprint.position_of
    todo = [
        source
        for index in merged.tail
        if ops[index].kind == "add"
        for source in ops[index].inputs
        if source != merged.exit
    ]
    while todo:
        index = todo.pop()
        if index in chain_ops or index in found or ops[index].kind not in LINEAR_KINDS:
            continue
        found.add(index)
        todo.extend(ops[index].inputs)
    return tuple(sorted(found))
