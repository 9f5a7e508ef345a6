"""The algebra of convolutions: what linear operations in a row are as one convolution.

Tensors in, tensors out; everything is differentiable and keeps dtype and device. Kernel
sizes, strides and offsets follow the integer arithmetic of `blueprint.Form`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from dpcompress.blueprint import ConvSpec, Pair, Sides
from dpcompress.blueprint.form import Form


@dataclass(frozen=True)
class AffineConv:
    """An affine convolution of some input e with C channels, by numbers.

    Output pixel y is ``bias + Σ_t weight[:, :, t] · e[stride·y + t·spacing − offset]``,
    per dimension, with e continued by zeros. Kim et al. 2023, §3.

    weight: (C_out, C / groups, K_h, K_w).
    bias: (C_out,).
    form: its kernel, stride, spacing, offset and groups.
    """

    weight: Tensor
    bias: Tensor
    form: Form


def dirac(channels: int, like: Tensor) -> AffineConv:
    """The identity on `channels` channels, with `like`'s dtype and device."""
    ones, zeros = like.new_ones(channels, 1, 1, 1), like.new_zeros(channels)
    return AffineConv(ones, zeros, Form.identity(channels))


def scale(conv: AffineConv, factor: Tensor, shift: Tensor) -> AffineConv:
    """Follow `conv` by x ↦ factor·x + shift per channel; factor, shift: (C_out,)."""
    weight = conv.weight * factor[:, None, None, None]
    bias = conv.bias * factor + shift
    return AffineConv(weight, bias, replace(conv.form, bias=True))


def norm_factors(
    mean: Tensor, var: Tensor, eps: float, weight: Tensor | None, bias: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Give a batch norm in eval mode, with its own `eps`, as (factor, shift) for `scale`.

    All tensors: (C,). weight, bias: None if the norm has none.
    """
    factor = torch.rsqrt(var + eps)
    if weight is not None:
        factor = factor * weight
    shift = -mean * factor
    return factor, shift if bias is None else shift + bias


def pad(conv: AffineConv, padding: Sides) -> AffineConv:
    """Follow `conv` by zeros around its output, moved to before it.

    Not the same function near the border: it is that of the linearized form
    (docs/method.md §3).
    """
    return replace(conv, form=conv.form.then_pad(padding))


def regroup(weight: Tensor, groups: int, coarser: int) -> Tensor:
    """Write a grouped kernel with fewer groups: zeros fill what was not connected.

    Args:
        weight: (C_out, C_in / groups, K_h, K_w).
        coarser: the new number of groups, a divisor of `groups`.

    Returns:
        (C_out, C_in / coarser, K_h, K_w).

    Raises:
        ValueError: `coarser` does not divide `groups`.
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
    first: AffineConv, weight: Tensor, bias: Tensor | None, spec: ConvSpec
) -> AffineConv:
    """Compose `first` and a convolution of shape `spec` after it (docs/method.md §3).

    Its padding is moved to before `first`, which can change values near the border. The
    result has gcd(first.groups, spec.groups) groups, and the widest tap spacing that both
    kernels allow.

    Args:
        weight: (C_out, C_mid / groups, k_h, k_w) of the second conv.
        bias: (C_out,) or None.
    """
    form, groups = first.form.then_conv(spec), spec.groups
    source = _rewritten(first, form)
    c_mid, c_in, height, width = source.shape
    c_out = spec.out_channels
    rows = source.reshape(groups, c_mid // groups, c_in * height * width)
    columns = weight.reshape(groups, c_out // groups, c_mid // groups, *spec.kernel)
    steps = [
        spec.dilation[d] * first.form.stride[d] // (form.spacing[d] or 1) for d in (0, 1)
    ]
    total: Tensor | None = None
    for y in range(spec.kernel[0]):
        for x in range(spec.kernel[1]):
            part = torch.bmm(columns[..., y, x], rows)
            part = part.reshape(c_out, c_in, height, width)
            top, left = y * steps[0], x * steps[1]
            if total is None:
                total = _placed(part, form.kernel, top, left)
            else:
                total[:, :, top : top + height, left : left + width] += part
    assert total is not None
    passed = torch.bmm(
        columns.sum((3, 4)), first.bias.reshape(groups, c_mid // groups, 1)
    ).reshape(c_out)
    return AffineConv(total, passed if bias is None else passed + bias, form)


def add(first: AffineConv, second: AffineConv) -> AffineConv:
    """Add two affine convolutions of one input, kernels aligned by their offsets.

    Raises:
        ValueError: their strides or channels differ.
    """
    form = first.form.plus(second.form)
    if form is None:
        raise ValueError(f"{first.form} and {second.form} cannot be added")
    one, two = (
        _placed(
            _rewritten(conv, form),
            form.kernel,
            *(
                (form.offset[d] - conv.form.offset[d]) // (form.spacing[d] or 1)
                for d in (0, 1)
            ),
        )
        for conv in (first, second)
    )
    return AffineConv(one + two, first.bias + second.bias, form)


def _rewritten(conv: AffineConv, form: Form) -> Tensor:
    """The kernel of `conv` with the groups and the tap spacing of `form`."""
    wide = regroup(conv.weight, conv.form.groups, form.groups)
    return _spread(wide, conv.form.spacing, form.spacing)


def _placed(weight: Tensor, kernel: Pair, top: int, left: int) -> Tensor:
    """The kernel inside a larger one of zeros, from tap (top, left) on."""
    height, width = weight.shape[2:]
    bottom, right = kernel[0] - height - top, kernel[1] - width - left
    return F.pad(weight, (left, right, top, bottom))


def _spread(weight: Tensor, spacing: Pair, finer: Pair) -> Tensor:
    """Move the taps of a kernel `finer` pixels apart, with zeros between them."""
    steps = [s // f if f else 1 for s, f in zip(spacing, finer, strict=True)]
    sizes = [(k - 1) * s + 1 for k, s in zip(weight.shape[2:], steps, strict=True)]
    if sizes == list(weight.shape[2:]):
        return weight
    wide = weight.new_zeros(*weight.shape[:2], *sizes)
    wide[:, :, :: steps[0] or 1, :: steps[1] or 1] = weight
    return wide
