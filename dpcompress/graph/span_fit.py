"""The least-squares fit of a merged convolution, whatever its size."""

from __future__ import annotations

from math import prod

from torch.nn import functional as F

from dpcompress.algebra import ConvFit, FittedConv
from dpcompress.blueprint import ConvSpec, Pair

# Strong: the fit is no worse, and kernels stay small enough to be trained further
# (experiments/cifar10).
RIDGE = 1e-2
# At most this many weights per output channel are fitted: a Gram matrix of 216 MB.
UNKNOWNS = 5200
SAMPLES_PER_UNKNOWN, LEAST_SAMPLES = 8, 20_000


def begin_fit(conv: ConvSpec, images: int) -> ConvFit:
    """Prepare the fit of a merged convolution to pairs of its input and its output.

    Of a very large kernel only the middle taps are fitted, at most UNKNOWNS weights per
    output channel; `whole_kernel` adds the others.

    images: how many will be added.
    """
    cut = _cut(conv)
    (top, bottom), (left, right) = (
        (front - c * step, back - c * step)
        for (front, back), c, step in zip(conv.padding, cut, conv.dilation, strict=True)
    )
    kernel = (conv.kernel[0] - 2 * cut[0], conv.kernel[1] - 2 * cut[1])
    unknowns = conv.in_channels // conv.groups * prod(kernel)
    return ConvFit(
        kernel=kernel,
        stride=conv.stride,
        padding=((top, bottom), (left, right)),
        dilation=conv.dilation,
        groups=conv.groups,
        samples=max(SAMPLES_PER_UNKNOWN * unknowns, LEAST_SAMPLES),
        expected=images,
    )


def whole_kernel(conv: ConvSpec, found: FittedConv) -> FittedConv:
    """Put zeros in the places of the taps that `begin_fit` left out."""
    rows, columns = _cut(conv)
    weight = F.pad(found.weight, (columns, columns, rows, rows))
    return FittedConv(weight, found.bias, found.residual)


def _cut(conv: ConvSpec) -> Pair:
    """Count the taps to leave out at each end of each dimension, the longer one first."""
    size, cut = list(conv.kernel), [0, 0]
    while conv.in_channels // conv.groups * size[0] * size[1] > UNKNOWNS:
        longer = 0 if size[0] >= size[1] else 1
        if size[longer] < 3:
            break
        size[longer] -= 2
        cut[longer] += 1
    return cut[0], cut[1]
