"""Deciding where each op of a linearized span computes: plain data, without torch.

`pad_first` states the definition (docs/method.md §3): all padding of a span stands in
front of it, and the tensors inside reach beyond their original frames. `shrink_frames`
finds a cheaper form of the same function. What pointwise convs and norms make of the
zeros in front is one constant per channel. So an op works on the original frame, with
that constant noted, until a larger kernel looks over the edge. That conv pads with zeros
by itself; its response to the constant around a frame of zeros, the same for every image,
is added.

The two forms agree in eval mode, gradients included. In training mode batch statistics of
the cheaper form leave the border out, and its constants follow the running statistics.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from dpcompress.blueprint import Blueprint, MergedSpan, Op, Pair, Sides, input_margin

UNCHANGED: Sides = ((0, 0), (0, 0))


@dataclass(frozen=True)
class Frame:
    """The way in which one op of a linearized span computes.

    Amounts are ((top, bottom), (left, right)) pixels; negative ones cut.

    op: index in the Blueprint.
    margin: how far the op's tensor reaches beyond its original frame.
    resize: how far each input is widened for the op, one entry per input.
    padding: zeros (vertical, horizontal) with which a conv itself widens its input.
    outside: the values beyond the margin of the op's tensor: zero, one constant per
        channel, or different ones ("varied").
    """

    op: int
    margin: Sides
    resize: tuple[Sides, ...]
    padding: Pair | None = None
    outside: Literal["zero", "constant", "varied"] = "varied"


def pad_first(blueprint: Blueprint, span: MergedSpan) -> list[Frame]:
    """Pad the span's input, let no op inside pad, crop the skips: the definition."""
    margins = dict(span.margins) | {span.entry: UNCHANGED}
    frames = []
    for index in span.region:
        op, margin = blueprint.ops[index], margins[index]
        given = [margins[i] for i in op.inputs]
        frames.append(Frame(index, margin, _resize(blueprint, op, margin, given)))
    return frames


def shrink_frames(
    blueprint: Blueprint, span: MergedSpan, frames: Sequence[Frame]
) -> list[Frame]:
    """Rewrite the frames of `pad_first` to the original tensor sizes, with equal results,
    wherever the values outside of them are constant."""
    shrunk = {span.entry: Frame(span.entry, UNCHANGED, (), outside="zero")}
    for wide in frames:
        op = blueprint.ops[wide.op]
        sources = [shrunk[i] for i in op.inputs]
        margin = _kept_margin(op, sources)
        if margin is None or (wide.op == span.exit and margin != wide.margin):
            given = [source.margin for source in sources]
            resize = _resize(blueprint, op, wide.margin, given)
            shape = blueprint.ops[op.inputs[0]].shape
            padding = _own_padding(op, shape, sources[0], resize[0])
            shrunk[wide.op] = Frame(wide.op, wide.margin, resize, padding)
        else:
            resize = (UNCHANGED,) * len(sources)
            outside = _outside(op, sources)
            shrunk[wide.op] = Frame(wide.op, margin, resize, outside=outside)
    return [shrunk[index] for index in span.region]


def _resize(
    blueprint: Blueprint, op: Op, margin: Sides, given: Sequence[Sides]
) -> tuple[Sides, ...]:
    """Compute how far inputs with margins `given` are widened for the output `margin`."""
    needs = [input_margin(op, blueprint.ops[i].shape, margin) for i in op.inputs]
    return tuple(subtract(need, have) for need, have in zip(needs, given, strict=True))


def subtract(a: Sides, b: Sides) -> Sides:
    """Compute a − b for each of the four sides."""
    (top, bottom), (left, right) = a
    return (
        (top - b[0][0], bottom - b[0][1]),
        (left - b[1][0], right - b[1][1]),
    )


def _kept_margin(op: Op, sources: Sequence[Frame]) -> Sides | None:
    """The margin of `op`'s output if it can work pixel by pixel on its inputs as they
    are, constants outside; None if it cannot."""
    first, conv = sources[0], op.conv
    if any(s.outside == "varied" or s.margin != first.margin for s in sources):
        return None
    if conv is not None:
        one_pixel = conv.extent == (1, 1) and conv.padding == UNCHANGED
        strided = conv.stride != (1, 1) and first.margin != UNCHANGED
        if op.kind == "avgpool" or not one_pixel or strided:
            return None
    if op.kind == "identity" and first.outside != "zero":
        return None  # dropout makes something random of a constant
    return subtract(first.margin, op.padding or UNCHANGED)


def _outside(op: Op, sources: Sequence[Frame]) -> Literal["zero", "constant"]:
    """The values that the pointwise `op` gives where its inputs are constant."""
    adds = op.kind == "norm" or (op.conv is not None and op.conv.bias)
    zero = not adds and all(source.outside == "zero" for source in sources)
    return "zero" if zero else "constant"


def _own_padding(
    op: Op, shape: tuple[int, ...], source: Frame, resize: Sides
) -> Pair | None:
    """The `padding` by which the conv `op` itself widens its input, of `shape` and a
    margin, by `resize`; None if it cannot. The far end may get more, where no output sees
    it."""
    if op.kind != "conv" or op.conv is None or source.outside == "varied":
        return None
    for d in (0, 1):
        (front, back), stride = resize[d], op.conv.stride[d]
        room = shape[1 + d] + sum(source.margin[d]) + front - op.conv.extent[d]
        if front < 0 or (room + front) // stride != (room + back) // stride:
            return None
    return resize[0][0], resize[1][0]
