"""Padding first, yet without larger tensors: the border of a linearized span.

All padding of a span belongs in front of it (docs/method.md §3). What pointwise convs and
norms make of those zeros is one constant per channel, so tensors stay in their own frame,
with that constant noted, until a larger kernel looks over the edge. That conv pads with
zeros by itself, and its response to the constant around a frame of zeros, the same for
every image, is added.

In training, the constant is that of the norm's running statistics, and the batch
statistics leave the border out; in eval mode nothing changes but rounding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, fx
from torch.nn import functional as F

from dpcompress.algebra import norm_factors
from dpcompress.blueprint import Op, Pair, Sides

UNCHANGED: Sides = ((0, 0), (0, 0))
Outside = fx.Node | Literal[0] | None


@dataclass(frozen=True)
class Value:
    """A tensor inside a linearized span.

    node: gives it in its op's frame, widened by `margin` (cut where negative).
    outside: what lies beyond, in the linearized form: 0, a node of shape (1, C, 1, 1), or
        None where it differs from pixel to pixel.
    """

    node: fx.Node
    margin: Sides = UNCHANGED
    outside: Outside = 0


def minus(a: Sides, b: Sides) -> Sides:
    """Side by side."""
    (top, bottom), (left, right) = (
        (x[0] - y[0], x[1] - y[1]) for x, y in zip(a, b, strict=True)
    )
    return (top, bottom), (left, right)


def kept_margin(op: Op, sources: list[Value]) -> Sides | None:
    """The margin that `op`'s output has if `op` works pixel by pixel on the tensors as
    they are, with a constant outside; None if it has to see more than that."""
    first, conv = sources[0], op.conv
    if any(s.outside is None or s.margin != first.margin for s in sources):
        return None
    if conv is not None:
        one_pixel = conv.extent == (1, 1) and conv.padding == UNCHANGED
        strided = conv.stride != (1, 1) and first.margin != UNCHANGED
        if op.kind == "avgpool" or not one_pixel or strided:
            return None
    if op.kind == "identity" and first.outside != 0:
        return None  # dropout and alike make something random of a constant
    return minus(first.margin, op.padding or UNCHANGED)


def own_padding(
    op: Op, shape: tuple[int, ...], margin: Sides, amounts: Sides
) -> Pair | None:
    """The `padding` with which the conv `op` itself widens an input, of (C, H, W) and a
    margin, by `amounts`; None if it cannot. At the far end it may pad more, as long as no
    output sees it."""
    assert op.conv is not None
    for d in (0, 1):
        (front, back), stride = amounts[d], op.conv.stride[d]
        room = shape[1 + d] + sum(margin[d]) + front - op.conv.extent[d]
        if front < 0 or (room + front) // stride != (room + back) // stride:
            return None
    return amounts[0][0], amounts[1][0]


# What follows is called from the graphs of linearized networks.


def outside_norm(
    outside: Tensor | float,
    eps: float,
    mean: Tensor,
    var: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
) -> Tensor:
    """The constant after a norm, (1, C, 1, 1)."""
    factor, shift = norm_factors(mean, var, eps, weight, bias)
    return outside * factor.view(1, -1, 1, 1) + shift.view(1, -1, 1, 1)


def outside_conv(
    outside: Tensor | float, weight: Tensor, bias: Tensor | None, groups: int
) -> Tensor:
    """The constant after a pointwise conv, (1, C, 1, 1)."""
    if isinstance(outside, Tensor):
        return F.conv2d(outside, weight, bias, groups=groups)
    assert outside == 0 and bias is not None
    return bias.view(1, -1, 1, 1)


def surround(images: Tensor, amounts: list[int], outside: Tensor | None = None) -> Tensor:
    """F.pad, with a constant per channel."""
    padded = F.pad(images, amounts)
    if outside is None:
        return padded
    return padded + outside * _border(images, amounts)


def add_border(
    output: Tensor,
    images: Tensor,
    amounts: list[int],
    outside: Tensor,
    weight: Tensor,
    stride: list[int],
    dilation: list[int],
    groups: int,
) -> Tensor:
    """`output` of a conv that padded `images` by `amounts` with zeros, as if it had
    padded them with `outside`."""
    around = outside * _border(images, amounts)
    return output + F.conv2d(around, weight, None, stride, 0, dilation, groups)


def _border(images: Tensor, amounts: list[int]) -> Tensor:
    """Ones around a frame of zeros, (1, 1, H, W)."""
    inside = torch.zeros_like(images[:1, :1], memory_format=torch.contiguous_format)
    return F.pad(inside, amounts, value=1.0)
