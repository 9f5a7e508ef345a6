"""Reading an nn.Conv2d or a subclass of it as a plain convolution."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from dpcompress.blueprint import Pair, Sides


def conv_padding(conv: nn.Conv2d, size: Pair) -> Sides:
    """Compute the zeros that `conv` puts around an input of `size` = (H, W)."""

    def sides(d: int) -> Pair:
        reach = conv.dilation[d] * (conv.kernel_size[d] - 1)
        if type(conv).__name__ == "Conv2dSame":
            outputs = -(-size[d] // conv.stride[d])
            total = max((outputs - 1) * conv.stride[d] + reach + 1 - size[d], 0)
            return (total // 2, total - total // 2)
        if conv.padding == "same":
            return (reach // 2, reach - reach // 2)
        if conv.padding == "valid":
            return (0, 0)
        return (int(conv.padding[d]), int(conv.padding[d]))

    return (sides(0), sides(1))


def is_plain(conv: nn.Conv2d, shape: tuple[int, ...], padding: Sides) -> bool:
    """Try whether `conv`, of a subclass, computes the plain convolution of its attributes
    and `padding` on an input of `shape` = (C, H, W)."""
    images = torch.randn(1, *shape, generator=torch.Generator().manual_seed(0))
    images = images.to(conv.weight.dtype)
    (top, bottom), (left, right) = padding
    with torch.no_grad():
        plain = F.conv2d(
            F.pad(images, (left, right, top, bottom)),
            conv.weight,
            conv.bias,
            conv.stride,
            0,
            conv.dilation,
            conv.groups,
        )
        actual = conv(images)
    return actual.shape == plain.shape and torch.allclose(actual, plain, atol=1e-5)


def plain_copy(conv: nn.Conv2d) -> nn.Conv2d:
    """Make a plain nn.Conv2d without padding that shares the weights of `conv`."""
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
    return plain
