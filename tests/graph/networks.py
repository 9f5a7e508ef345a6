"""Random networks, randomised norms and random plans for the tests of merging."""

from __future__ import annotations

import random
from collections.abc import Callable

import torch
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from dpcompress.blueprint import Blueprint, Plan, Span, legal_spans


def randomise(
    model: nn.Module,
    input_shape: tuple[int, int, int],
    seed: int = 0,
    *,
    noise: float = 1.0,
) -> None:
    """Random norm parameters, and statistics near what random images give: otherwise
    values grow from layer to layer, and rounding with them. A linearized network needs
    statistics of its own, as fine-tuning would give it.

    noise: how near; at 1, means are off by a fifth of the standard deviation, variances
        by a factor of 0.7 to 1.4.
    """
    torch.manual_seed(seed)
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.momentum = None  # a plain average
        norm.reset_running_stats()
        if norm.affine:
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias, std=0.2)
    model.train()
    with torch.no_grad():
        for _ in range(2):
            model(torch.randn(4, *input_shape, dtype=next(model.parameters()).dtype))
        for norm in norms:
            if norm.running_mean is not None and norm.running_var is not None:
                off = noise * torch.randn_like(norm.running_mean)
                norm.running_mean += 0.2 * norm.running_var.sqrt() * off
                factor = torch.empty_like(norm.running_var)
                norm.running_var *= factor.uniform_(1 - 0.3 * noise, 1 + 0.4 * noise)
    model.eval()


def random_plan(blueprint: Blueprint, seed: int, *, candidates: bool = True) -> Plan:
    """A legal plan that likes long spans and free activations."""
    rng = random.Random(seed)
    spans = [
        span
        for span, merged in legal_spans(blueprint).items()
        if merged.is_candidate or not candidates
    ]
    edges = [0]
    while edges[-1] < blueprint.depth:
        options = [s for s in spans if s.start == edges[-1]]
        edges.append(rng.choices(options, [s.length**2 for s in options])[0].stop)
    has = blueprint.has_activation
    kept = [p for p in edges[1:] if has(p) and rng.random() < 0.8]
    added = [p for p in edges[1:] if not has(p) and rng.random() < 0.4]
    return Plan.build(
        tuple(edges),
        (*kept, *added),
        added_activations=tuple(added),
        blueprint=blueprint.digest,
        input=blueprint.input,
    )


def whole_plan(blueprint: Blueprint, spans: list[tuple[int, int]]) -> Plan:
    """Exactly `spans` merged, everything else kept."""
    inside = {p for start, stop in spans for p in range(start + 1, stop)}
    edges = [p for p in range(blueprint.depth + 1) if p not in inside]
    return Plan.build(
        tuple(edges),
        tuple(p for p in edges[1:] if blueprint.has_activation(p)),
        blueprint=blueprint.digest,
        input=blueprint.input,
    )


def legal(blueprint: Blueprint) -> set[Span]:
    return set(legal_spans(blueprint))


class Parallel(nn.Module):
    """A sum of branches that all start from the same tensor."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        total = self.branches[0](x)
        for branch in self.branches[1:]:
            total = total + branch(x)
        return total


class Pad(nn.Module):
    """Zeros of its own on each side, as (left, right, top, bottom)."""

    def __init__(self, amounts: tuple[int, int, int, int]) -> None:
        super().__init__()
        self.amounts = amounts

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x, self.amounts)


class Chain(nn.Module):
    """A random chain; `draw` is hypothesis' draw function."""

    def __init__(self, draw: Callable[..., int], size: tuple[int, int]) -> None:
        super().__init__()
        self.draw, self.size = draw, size
        channels = draw(st.sampled_from([2, 4, 6]))
        self.inputs = channels
        layers: list[nn.Module] = []
        channels = self._conv(layers, channels)
        for _ in range(draw(st.integers(1, 4))):
            channels = self._block(layers, channels)
        self.body = nn.Sequential(*layers)
        del self.draw

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)

    def _one_of(self, *values: object) -> object:
        return self.draw(st.sampled_from(values))

    def _block(self, layers: list[nn.Module], channels: int) -> int:
        kind = self._one_of("conv", "conv", "conv", "skip", "project", "parallel", "pool")
        if kind == "pool" and min(self.size) >= 4:
            layers.append(
                nn.AvgPool2d(2, 2) if self._one_of(0, 1) else nn.AvgPool2d(3, 1, 1)
            )
            self._resize(layers[-1], channels)
            return channels
        if kind == "skip":
            inner: list[nn.Module] = []
            middle = self._conv(inner, channels, same=True)
            if self._one_of(0, 1):
                nested: list[nn.Module] = []
                self._conv(nested, middle, same=True, out=middle)
                inner.append(Parallel(nn.Sequential(*nested), nn.Identity()))
            self._conv(inner, middle, same=True, out=channels, last=True)
            layers.append(Parallel(nn.Sequential(*inner), nn.Identity()))
        elif kind == "project":
            out, stride = self._one_of(2, 4, 6), self._one_of(1, 2)
            main: list[nn.Module] = []
            size = self.size
            middle = self._conv(main, channels, same=True)
            self._conv(main, middle, same=True, out=out, stride=stride, last=True)
            after, self.size = self.size, size
            short: list[nn.Module] = []
            self._conv(short, channels, out=out, kernel=1, stride=stride, last=True)
            assert self.size == after
            layers.append(Parallel(nn.Sequential(*main), nn.Sequential(*short)))
            channels = out
        elif kind == "parallel":
            main, side = [], []
            self._conv(main, channels, same=True, out=channels, kernel=3, last=True)
            self._conv(side, channels, same=True, out=channels, kernel=1, last=True)
            branches = [nn.Sequential(*main), nn.Sequential(*side)]
            layers.append(Parallel(*branches, nn.BatchNorm2d(channels, eps=1e-3)))
        else:
            return self._conv(layers, channels)
        if self._one_of(0, 1):
            layers.append(nn.ReLU())
        return channels

    def _conv(
        self,
        layers: list[nn.Module],
        channels: int,
        *,
        out: object = None,
        kernel: object = None,
        stride: object = None,
        same: bool = False,
        last: bool = False,
    ) -> int:
        out = int(out or self._one_of(2, 4, 6))  # type: ignore[call-overload]
        groups = self._one_of(
            *(g for g in (1, 1, 2, 3) if not channels % g and not out % g)
        )
        if kernel is None:
            kernel = (
                self._one_of(1, 3)
                if same
                else (self._one_of(1, 2, 3, 5), self._one_of(1, 2, 3))
            )
        if isinstance(kernel, int):
            kernel = (kernel, kernel)
        dilation = 1 if not same and max(kernel) > 3 else self._one_of(1, 1, 2)
        if same:
            padding = tuple(dilation * (k // 2) for k in kernel)
        elif kernel == (1, 1):
            padding = (0, 0)
        else:
            padding = (self._one_of(0, 1, 2), self._one_of(0, 1))
            if self._one_of(0, 0, 1):
                amounts = tuple(self._one_of(0, 1, 2) for _ in range(4))
                layers.append(Pad(amounts))
                self.size = (
                    self.size[0] + amounts[2] + amounts[3],
                    self.size[1] + amounts[0] + amounts[1],
                )
        if stride is None:
            stride = 1 if same else self._one_of(1, 1, 2, 3)
        reach = [(k - 1) * dilation + 1 for k in kernel]
        if any(s + 2 * p < r for s, p, r in zip(self.size, padding, reach, strict=True)):
            kernel, padding = (1, 1), (0, 0)
        conv = nn.Conv2d(
            channels,
            out,
            kernel,
            stride,
            padding,
            dilation,
            groups,
            bias=bool(self._one_of(0, 1)),
        )
        layers.append(conv)
        self._resize(conv, channels)
        if self._one_of(0, 1):
            layers.append(nn.BatchNorm2d(out, eps=self._one_of(1e-5, 1e-3, 0.1)))
        if not last and self._one_of(0, 1, 1):
            layers.append(self._one_of(nn.ReLU, nn.ReLU6, nn.SiLU, nn.Hardswish)())
        return out

    def _resize(self, module: nn.Module, channels: int) -> None:
        with torch.no_grad():
            self.size = tuple(module(torch.zeros(1, channels, *self.size)).shape[2:])


@st.composite
def chains(draw: Callable[..., int]) -> tuple[nn.Module, tuple[int, int, int]]:
    """A random network in float64 and its input shape."""
    size = (draw(st.integers(5, 13)), draw(st.integers(5, 13)))
    seed = draw(st.integers(0, 2**20))
    torch.manual_seed(seed)
    network = Chain(draw, size).double()
    shape = (network.inputs, *size)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.3, 2)
    return network.eval(), shape
