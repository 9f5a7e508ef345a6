"""Functions that the graphs of linearized networks call at the border of a frame."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from dpcompress.algebra import norm_factors


def constant_after_norm(
    constant: Tensor | float,
    eps: float,
    mean: Tensor,
    var: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
) -> Tensor:
    """Apply a batch norm to one constant per channel, by its running statistics, as
    (1, C, 1, 1)."""
    factor, shift = norm_factors(mean, var, eps, weight, bias)
    return constant * factor.view(1, -1, 1, 1) + shift.view(1, -1, 1, 1)


def constant_after_conv(
    constant: Tensor | float, weight: Tensor, bias: Tensor | None, groups: int
) -> Tensor:
    """Apply a pointwise conv to one constant per channel, 0 or (1, C_in, 1, 1), as
    (1, C_out, 1, 1)."""
    if isinstance(constant, Tensor):
        return F.conv2d(constant, weight, bias, groups=groups)
    assert constant == 0 and bias is not None
    return bias.view(1, -1, 1, 1)


def surround(
    images: Tensor, amounts: list[int], constant: Tensor | None = None
) -> Tensor:
    """Pad by (left, right, top, bottom) with one constant per channel, (1, C, 1, 1), or
    zeros; cut where negative."""
    padded = F.pad(images, amounts)
    if constant is None:
        return padded
    return padded + constant * _border(images, amounts)


def add_border(
    output: Tensor,
    images: Tensor,
    amounts: list[int],
    constant: Tensor,
    weight: Tensor,
    stride: list[int],
    dilation: list[int],
    groups: int,
) -> Tensor:
    """Turn the `output` of a conv that padded `images` with zeros into that of one that
    padded them with `constant`, (1, C, 1, 1). amounts: (left, right, top, bottom)."""
    around = constant * _border(images, amounts)
    return output + F.conv2d(around, weight, None, stride, 0, dilation, groups)


def _border(images: Tensor, amounts: list[int]) -> Tensor:
    """Make ones around a frame of zeros, (1, 1, H, W)."""
    inside = torch.zeros_like(images[:1, :1], memory_format=torch.contiguous_format)
    return F.pad(inside, amounts, value=1.0)
