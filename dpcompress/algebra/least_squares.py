"""The convolution that best maps given inputs to given outputs, by least squares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor
from torch.nn import functional as F

from dpcompress.blueprint import Pair, Sides

# Patch values in memory at a time: 64 MB in float32.
_CHUNK_VALUES = 1 << 24
_TINY = torch.finfo(torch.float64).tiny


@dataclass(frozen=True)
class FittedConv:
    """A convolution found by least squares.

    weight: (C_out, C_in / groups, K_h, K_w), float64.
    bias: (C_out,), float64.
    residual: root mean square of the errors over the target's standard deviation, on the
        samples of the fit.
    """

    weight: Tensor
    bias: Tensor
    residual: float


class ConvFit:
    """The normal equations of ridge regressions from the patches of one input.

    Each regression minimises Σ ‖W·patch + b − target‖² + λ‖W‖². λ is `ridge` times the
    variance of a patch value, summed over the samples and averaged over the values of a
    patch, so it grows with the scale and the amount of the data as the first term does;
    the bias is free. `add` takes images in chunks. Memory is bounded by the Gram matrix,
    (C_in / groups · K_h · K_w)² float64 numbers per group, and by 64 MB of patches.

    Args:
        padding: zeros at ((top, bottom), (left, right)).
        samples: the most output pixels that are used, of every image equally many; None
            for all. Neighbouring pixels tell almost the same.
        expected: how many images will be added; `samples` is spread over them.
    """

    def __init__(
        self,
        *,
        kernel: Pair,
        stride: Pair = (1, 1),
        padding: Sides = ((0, 0), (0, 0)),
        dilation: Pair = (1, 1),
        groups: int = 1,
        samples: int | None = None,
        expected: int = 1,
    ) -> None:
        self.kernel, self.stride, self.padding = kernel, stride, padding
        self.dilation, self.groups = dilation, groups
        self.per_image = None if samples is None else max(1, samples // expected)
        self.generator = torch.Generator().manual_seed(0)
        self.count = 0
        self.targets: list[_Target] = []

    def add(self, inputs: Tensor, targets: Sequence[Tensor]) -> None:
        """Add images to the sums.

        Args:
            inputs: (N, C_in, H, W).
            targets: (N, C_out, H', W') each; the same number and the same channels at
                every call. The result for one does not depend on the others, to the bit.

        Raises:
            ValueError: sizes do not belong together.
        """
        windows = self._windows(inputs)
        size = windows.shape[1:3]
        if any(t.shape[0] != len(inputs) or t.shape[2:] != size for t in targets):
            shapes = [tuple(t.shape) for t in targets]
            raise ValueError(f"targets {shapes} for {len(inputs)} outputs of {size}")
        if not self.targets:
            self._begin(inputs, targets)
        rows, columns = self._pixels(size)
        step = max(1, _CHUNK_VALUES // (len(rows) * prod(windows.shape[3:])))
        for first in range(0, len(inputs), step):
            chunk = slice(first, first + step)
            x = self._grouped(windows[chunk][:, rows, columns].flatten(2, 3))
            self.count += x.shape[1]
            self.gram += x.transpose(1, 2) @ x
            self.sum_x += x.sum(1, dtype=torch.float64)
            for sums, target in zip(self.targets, targets, strict=True):
                y = target[chunk].permute(0, 2, 3, 1)[:, rows, columns]
                sums.add(x, self._grouped(y[:, :, None]))

    def solve(self, ridge: float = 1e-4) -> list[FittedConv]:
        """Find one convolution per target.

        Raises:
            ValueError: nothing was added.
        """
        if not self.count:
            raise ValueError("no samples were added")
        mean = self.sum_x / self.count
        gram = self.gram - self.count * mean[:, :, None] * mean[:, None, :]
        # A group that never varies gets weight 0 rather than a division by 0.
        strength = (ridge * gram.diagonal(dim1=1, dim2=2).mean(1)).clamp_min(_TINY)
        strength = strength[:, None, None]
        system = gram + strength * torch.eye(gram.shape[1], dtype=torch.float64)
        factor, failed = torch.linalg.cholesky_ex(system)
        found = []
        for sums in self.targets:
            mean_y = sums.total / self.count
            cross = sums.cross - self.count * mean[:, :, None] * mean_y[:, None, :]
            if failed.any():  # next to no ridge, and patches that depend on each other
                weight = torch.linalg.lstsq(system, cross, driver="gelsd").solution
            else:
                weight = torch.cholesky_solve(cross, factor)
            bias = mean_y - (mean[:, None] @ weight)[:, 0]
            spread = (sums.square - self.count * mean_y.square()).sum()
            explained = 2 * (cross * weight).sum() - (weight * (gram @ weight)).sum()
            left = float((spread - explained) / spread.clamp_min(_TINY))
            taps = weight.unflatten(1, (*self.kernel, -1)).permute(0, 4, 3, 1, 2)
            found.append(
                FittedConv(
                    taps.flatten(0, 1).contiguous(), bias.flatten(), max(left, 0) ** 0.5
                )
            )
        return found

    def _begin(self, inputs: Tensor, targets: Sequence[Tensor]) -> None:
        channels, groups = inputs.shape[1], self.groups
        if any(c % groups for c in (channels, *(t.shape[1] for t in targets))):
            raise ValueError(f"{groups} groups do not divide the channels")
        size = channels // groups * self.kernel[0] * self.kernel[1]
        self.gram = torch.zeros(groups, size, size, dtype=torch.float64)
        self.sum_x = torch.zeros(groups, size, dtype=torch.float64)
        self.targets = [_Target(groups, size, t.shape[1] // groups) for t in targets]

    def _windows(self, inputs: Tensor) -> Tensor:
        """The patch of every output pixel, (N, H', W', K_h, K_w, C_in): a view."""
        (top, bottom), (left, right) = self.padding
        last = F.pad(inputs.permute(0, 2, 3, 1), (0, 0, left, right, top, bottom))
        last = last.contiguous()
        sizes = [
            (full - (k - 1) * d - 1) // s + 1
            for full, k, d, s in zip(
                last.shape[1:3], self.kernel, self.dilation, self.stride, strict=True
            )
        ]
        image, row, pixel, channel = last.stride()
        steps = (row * self.stride[0], pixel * self.stride[1])
        taps = (row * self.dilation[0], pixel * self.dilation[1])
        return last.as_strided(
            (len(last), *sizes, *self.kernel, last.shape[3]),
            (image, *steps, *taps, channel),
        )

    def _pixels(self, size: Sequence[int]) -> tuple[Tensor, Tensor]:
        """The rows and the columns of the output pixels to use."""
        total = size[0] * size[1]
        chosen = torch.arange(total)
        if self.per_image is not None and self.per_image < total:
            chosen = torch.randperm(total, generator=self.generator)[: self.per_image]
            chosen = chosen.sort().values
        return chosen // size[1], chosen % size[1]

    def _grouped(self, values: Tensor) -> Tensor:
        """Rearrange (N, pixels, taps, C) to (groups, N·pixels, taps·C / groups)."""
        n, pixels, taps, _ = values.shape
        split = values.unflatten(3, (self.groups, -1)).permute(3, 0, 1, 2, 4)
        return split.reshape(self.groups, n * pixels, -1)


class _Target:
    """The sums over the samples of one target: Σ x·yᵀ, Σ y and Σ y²."""

    def __init__(self, groups: int, size: int, width: int) -> None:
        self.cross = torch.zeros(groups, size, width, dtype=torch.float64)
        self.total = torch.zeros(groups, width, dtype=torch.float64)
        self.square = torch.zeros(groups, width, dtype=torch.float64)

    def add(self, x: Tensor, y: Tensor) -> None:
        self.cross += x.transpose(1, 2) @ y
        self.total += y.sum(1, dtype=torch.float64)
        self.square += y.double().square().sum(1)
