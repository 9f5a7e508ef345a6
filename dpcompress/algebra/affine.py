"""Convolution algebra: what several linear operations in a row are as one convolution.

Tensors in, tensors out; everything is differentiable and keeps dtype and device.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd

import torch
from torch import Tensor

Pair = tuple[int, int]


@dataclass(frozen=True)
class AffineConv:
    """An affine convolution relative to some input e with C channels.

    Output pixel y is ``bias + Σ_t weight[:, :, t] · e[stride·y + t·spacing − offset]``,
    per dimension, with e continued by zeros. Kim et al. 2023, §3.

    weight: (C_out, C / groups, K_h, K_w).
    bias: (C_out,).
    spacing: distance of neighbouring taps in pixels of e; 0 where there is one tap.
    offset: how far the first tap of output pixel 0 lies before e's first pixel.
    """

    weight: Tensor
    bias: Tensor
    stride: Pair = (1, 1)
    spacing: Pair = (0, 0)
    offset: Pair = (0, 0)
    groups: int = 1

    @property
    def kernel(self) -> Pair:
        return (self.weight.shape[2], self.weight.shape[3])

    @property
    def extent(self) -> Pair:
        """Pixels of e from the first tap to the last, both counted."""
        return (
            (self.kernel[0] - 1) * self.spacing[0] + 1,
            (self.kernel[1] - 1) * self.spacing[1] + 1,
        )


def dirac(channels: int, like: Tensor) -> AffineConv:
    """The identity on `channels` channels, with `like`'s dtype and device."""
    return AffineConv(
        like.new_ones(channels, 1, 1, 1), like.new_zeros(channels), groups=channels
    )


def scale(conv: AffineConv, factor: Tensor, shift: Tensor) -> AffineConv:
    """`conv` followed by x ↦ factor·x + shift per channel; factor, shift: (C_out,)."""
    return AffineConv(
        conv.weight * factor[:, None, None, None],
        conv.bias * factor + shift,
        conv.stride,
        conv.spacing,
        conv.offset,
        conv.groups,
    )


def norm_factors(
    mean: Tensor, var: Tensor, eps: float, weight: Tensor | None, bias: Tensor | None
) -> tuple[Tensor, Tensor]:
    """A batch norm in eval mode as (factor, shift) for `scale`, with its own `eps`."""
    factor = torch.rsqrt(var + eps)
    if weight is not None:
        factor = factor * weight
    shift = -mean * factor
    return factor, shift if bias is None else shift + bias


def pad(conv: AffineConv, front: Pair) -> AffineConv:
    """`conv` followed by `front` = (top, left) zeros, moved to before the conv.

    The function changes near the border, as in the linearized form (docs/method.md §3).
    """
    offset = tuple(
        o + s * f for o, s, f in zip(conv.offset, conv.stride, front, strict=True)
    )
    return AffineConv(
        conv.weight,
        conv.bias,
        conv.stride,
        conv.spacing,
        (offset[0], offset[1]),
        conv.groups,
    )


def regroup(weight: Tensor, groups: int, coarser: int) -> Tensor:
    """A grouped kernel written with fewer groups: zeros fill what was not connected.

    Args:
        weight: (C_out, C_in / groups, K_h, K_w).
        coarser: a divisor of `groups`.

    Returns:
        (C_out, C_in / coarser, K_h, K_w).
    """
    if groups % coarser:
        raise ValueError(f"{coarser} does not divide {groups}")
    if groups == coarser:
        return weight
    c_out, c_in, *taps = weight.shape
    inner = groups // coarser
    blocks = weight.reshape(coarser, inner, c_out // groups, c_in, *taps)
    wide = weight.new_zeros(coarser, inner, c_out // groups, inner, c_in, *taps)
    index = torch.arange(inner, device=weight.device)
    wide[:, index, :, index] = blocks.transpose(0, 1)
    return wide.reshape(c_out, inner * c_in, *taps)


def compose(
    first: AffineConv,
    weight: Tensor,
    bias: Tensor | None,
    *,
    stride: Pair = (1, 1),
    front: Pair = (0, 0),
    dilation: Pair = (1, 1),
    groups: int = 1,
) -> AffineConv:
    """`first` followed by a convolution, as one (docs/method.md §3).

    Block structure survives with gcd(first.groups, groups) groups; the taps of the
    result are spaced by the greatest distance that both kernels allow.

    Args:
        weight: (C_out, C_mid / groups, k_h, k_w) of the second conv.
        front: its padding at the top and at the left, moved to before `first`.
    """
    merged_groups = gcd(first.groups, groups)
    source = regroup(first.weight, first.groups, merged_groups)
    taps = (weight.shape[2], weight.shape[3])
    steps, spacing, kernel = [], [], []
    for d in (0, 1):
        step = dilation[d] * first.stride[d] if taps[d] > 1 else 0
        space = gcd(first.spacing[d], step)
        extent = first.extent[d] + (taps[d] - 1) * step
        steps.append(step // space if space else 0)
        spacing.append(space)
        kernel.append(1 if space == 0 else (extent - 1) // space + 1)
    source = _spread(source, first.spacing, (spacing[0], spacing[1]))

    c_mid, c_in, height, width = source.shape
    c_out = weight.shape[0]
    rows = source.reshape(groups, c_mid // groups, c_in * height * width)
    columns = weight.reshape(groups, c_out // groups, c_mid // groups, *taps)
    parts = []
    for y in range(taps[0]):
        for x in range(taps[1]):
            part = torch.bmm(columns[..., y, x], rows)
            top, left = y * steps[0], x * steps[1]
            room = (
                left,
                kernel[1] - width - left,
                top,
                kernel[0] - height - top,
            )
            parts.append((part.reshape(c_out, c_in, height, width), room))
    total = torch.nn.functional.pad(*parts[0])
    for part, (left, _, top, _) in parts[1:]:
        total = _add_at(total, part, top, left)

    passed = torch.bmm(
        columns.sum((3, 4)), first.bias.reshape(groups, c_mid // groups, 1)
    ).reshape(c_out)
    return AffineConv(
        total,
        passed if bias is None else passed + bias,
        (first.stride[0] * stride[0], first.stride[1] * stride[1]),
        (spacing[0], spacing[1]),
        (
            first.offset[0] + first.stride[0] * front[0],
            first.offset[1] + first.stride[1] * front[1],
        ),
        merged_groups,
    )


def add(first: AffineConv, second: AffineConv) -> AffineConv:
    """The sum of two affine convolutions of one input, kernels aligned by their offsets.

    Raises:
        ValueError: their strides differ.
    """
    if first.stride != second.stride:
        raise ValueError(f"strides differ: {first.stride} and {second.stride}")
    groups = gcd(first.groups, second.groups)
    offset = tuple(map(max, first.offset, second.offset))
    spacing, kernel = [], []
    for d in (0, 1):
        shifts = (offset[d] - first.offset[d], offset[d] - second.offset[d])
        space = gcd(first.spacing[d], second.spacing[d], *shifts)
        extent = max(shifts[0] + first.extent[d], shifts[1] + second.extent[d])
        spacing.append(space)
        kernel.append(1 if space == 0 else (extent - 1) // space + 1)
    placed = []
    for conv in (first, second):
        wide = regroup(conv.weight, conv.groups, groups)
        wide = _spread(wide, conv.spacing, (spacing[0], spacing[1]))
        top, left = (
            (offset[d] - conv.offset[d]) // spacing[d] if spacing[d] else 0
            for d in (0, 1)
        )
        height, width = wide.shape[2:]
        room = (left, kernel[1] - width - left, top, kernel[0] - height - top)
        placed.append(torch.nn.functional.pad(wide, room))
    return AffineConv(
        placed[0] + placed[1],
        first.bias + second.bias,
        first.stride,
        (spacing[0], spacing[1]),
        (offset[0], offset[1]),
        groups,
    )


def _spread(weight: Tensor, spacing: Pair, finer: Pair) -> Tensor:
    """The same kernel with its taps `finer` pixels apart: zeros between the old ones."""
    steps = [s // f if f else 1 for s, f in zip(spacing, finer, strict=True)]
    sizes = [(k - 1) * s + 1 for k, s in zip(weight.shape[2:], steps, strict=True)]
    if sizes == list(weight.shape[2:]):
        return weight
    wide = weight.new_zeros(*weight.shape[:2], *sizes)
    wide[:, :, :: steps[0] or 1, :: steps[1] or 1] = weight
    return wide


def _add_at(total: Tensor, part: Tensor, top: int, left: int) -> Tensor:
    height, width = part.shape[2:]
    total[:, :, top : top + height, left : left + width] += part
    return total
