"""The shapes of what `dpcompress.algebra` computes: affine convolutions in integers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import gcd

from dpcompress.blueprint.data import ConvSpec, Pair, Sides


@dataclass(frozen=True)
class Form:
    """An affine convolution relative to the span's input, without its numbers.

    Output pixel y (per dimension) is b + Σ_t W[t] · entry[stride·y + t·spacing − offset].
    `spacing` is 0 in a dimension where the kernel has one tap.
    """

    channels: int
    kernel: Pair
    stride: Pair
    spacing: Pair
    offset: Pair
    groups: int
    bias: bool

    @property
    def extent(self) -> Pair:
        """The pixels of the input from the first tap to the last, both counted."""
        return (
            (self.kernel[0] - 1) * self.spacing[0] + 1,
            (self.kernel[1] - 1) * self.spacing[1] + 1,
        )

    @classmethod
    def identity(cls, channels: int) -> Form:
        """The form of the span's input itself."""
        return cls(channels, (1, 1), (1, 1), (0, 0), (0, 0), channels, False)

    def then_conv(self, spec: ConvSpec) -> Form:
        """Append a convolution (docs/method.md §3)."""
        kernel, stride, spacing, offset = [], [], [], []
        for d in (0, 1):
            step = spec.dilation[d] * self.stride[d] if spec.kernel[d] > 1 else 0
            space = gcd(self.spacing[d], step)
            extent = self.extent[d] + (spec.kernel[d] - 1) * step
            kernel.append(1 if space == 0 else (extent - 1) // space + 1)
            stride.append(self.stride[d] * spec.stride[d])
            spacing.append(space)
            offset.append(self.offset[d] + self.stride[d] * spec.padding[d][0])
        return Form(
            spec.out_channels,
            (kernel[0], kernel[1]),
            (stride[0], stride[1]),
            (spacing[0], spacing[1]),
            (offset[0], offset[1]),
            gcd(self.groups, spec.groups),
            self.bias or spec.bias,
        )

    def then_pad(self, padding: Sides) -> Form:
        """Append a padding, moved to before the convolution."""
        return replace(
            self,
            offset=(
                self.offset[0] + self.stride[0] * padding[0][0],
                self.offset[1] + self.stride[1] * padding[1][0],
            ),
        )

    def plus(self, other: Form) -> Form | None:
        """Add two forms; None if their strides or channels differ."""
        if (self.stride, self.channels) != (other.stride, other.channels):
            return None
        kernel, spacing, offset = [], [], []
        for d in (0, 1):
            front = max(self.offset[d], other.offset[d])
            shifts = (front - self.offset[d], front - other.offset[d])
            space = gcd(self.spacing[d], other.spacing[d], *shifts)
            extent = max(shifts[0] + self.extent[d], shifts[1] + other.extent[d])
            kernel.append(1 if space == 0 else (extent - 1) // space + 1)
            spacing.append(space)
            offset.append(front)
        return Form(
            self.channels,
            (kernel[0], kernel[1]),
            self.stride,
            (spacing[0], spacing[1]),
            (offset[0], offset[1]),
            gcd(self.groups, other.groups),
            self.bias or other.bias,
        )
