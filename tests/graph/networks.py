"""Random networks, randomised norms and random plans for the tests of merging."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from dpcompress.blueprint import Blueprint, Pair, Plan, Span, legal_spans


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


# A module as plain data: its type and its arguments, specs of branches for `Parallel`.
Spec = tuple[type[nn.Module], tuple[Any, ...]]


def build(specs: Sequence[Spec]) -> nn.Sequential:
    """Make the modules that `specs` describe, one after the other."""
    return nn.Sequential(
        *(
            Parallel(*map(build, arguments)) if kind is Parallel else kind(*arguments)
            for kind, arguments in specs
        )
    )


class Drawn(NamedTuple):
    """The specs of layers, and the channels and the size of the tensor after them."""

    specs: tuple[Spec, ...]
    channels: int
    size: Pair


CHANNELS = st.sampled_from((2, 4, 6))
ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.SiLU, nn.Hardswish)


@st.composite
def convs(
    draw: st.DrawFn,
    channels: int,
    outputs: int,
    shape: tuple[Pair, int, Pair, int],
    *,
    act: bool = True,
) -> tuple[Spec, ...]:
    """A convolution of `shape` = (kernel, stride, padding, dilation), perhaps with a norm
    and an activation."""
    groups = [g for g in (1, 1, 2, 3) if channels % g == outputs % g == 0]
    rest = (draw(st.sampled_from(groups)), draw(st.booleans()))
    specs: list[Spec] = [(nn.Conv2d, (channels, outputs, *shape, *rest))]
    if draw(st.booleans()):
        eps = draw(st.sampled_from((1e-5, 1e-3, 0.1)))
        specs.append((nn.BatchNorm2d, (outputs, eps)))
    if act and draw(st.sampled_from((False, True, True))):
        specs.append((draw(st.sampled_from(ACTIVATIONS)), ()))
    return tuple(specs)


@st.composite
def odd_convs(draw: st.DrawFn, channels: int, size: Pair) -> Drawn:
    """A convolution of any kernel, stride and padding, perhaps behind a pad."""
    kernel = (draw(st.sampled_from((1, 2, 3, 5))), draw(st.sampled_from((1, 2, 3))))
    stride = draw(st.sampled_from((1, 1, 2, 3)))
    dilation = 1 if max(kernel) > 3 else draw(st.sampled_from((1, 1, 2)))
    padding, specs = (0, 0), ()
    if kernel != (1, 1):
        padding = (draw(st.integers(0, 2)), draw(st.integers(0, 1)))
        if draw(st.sampled_from((False, False, True))):
            left, right, top, bottom = (draw(st.integers(0, 2)) for _ in range(4))
            specs = ((Pad, ((left, right, top, bottom),)),)
            size = (size[0] + top + bottom, size[1] + left + right)
    if any(
        s + 2 * p <= (k - 1) * dilation
        for s, p, k in zip(size, padding, kernel, strict=True)
    ):
        kernel, padding = (1, 1), (0, 0)
    height, width = (
        (s + 2 * p - (k - 1) * dilation - 1) // stride + 1
        for s, p, k in zip(size, padding, kernel, strict=True)
    )
    outputs = draw(CHANNELS)
    specs += draw(convs(channels, outputs, (kernel, stride, padding, dilation)))
    return Drawn(specs, outputs, (height, width))


@st.composite
def same_convs(
    draw: st.DrawFn,
    channels: int,
    outputs: int,
    *,
    kernel: int | None = None,
    stride: int = 1,
    act: bool = True,
) -> tuple[Spec, ...]:
    """A convolution whose output has ⌈size / stride⌉ pixels."""
    kernel = kernel or draw(st.sampled_from((1, 3)))
    dilation = draw(st.sampled_from((1, 1, 2)))
    padding = dilation * (kernel // 2)
    shape = ((kernel, kernel), stride, (padding, padding), dilation)
    return draw(convs(channels, outputs, shape, act=act))


@st.composite
def pools(draw: st.DrawFn, channels: int, size: Pair) -> Drawn:
    """An average pooling that halves the size, of at least 2 pixels, or keeps it."""
    if draw(st.booleans()):
        half = (size[0] // 2, size[1] // 2)
        return Drawn(((nn.AvgPool2d, (2, 2)),), channels, half)
    return Drawn(((nn.AvgPool2d, (3, 1, 1)),), channels, size)


@st.composite
def skips(draw: st.DrawFn, channels: int, size: Pair) -> Drawn:
    """Two convolutions and a skip around them, perhaps with a smaller one inside."""
    middle = draw(CHANNELS)
    main = draw(same_convs(channels, middle))
    if draw(st.booleans()):
        main += ((Parallel, (draw(same_convs(middle, middle)), ())),)
    main += draw(same_convs(middle, channels, act=False))
    return Drawn(((Parallel, (main, ())),), channels, size)


@st.composite
def projections(draw: st.DrawFn, channels: int, size: Pair) -> Drawn:
    """Two convolutions and a skip with a convolution of its own."""
    middle, outputs, stride = draw(CHANNELS), draw(CHANNELS), draw(st.integers(1, 2))
    main = draw(same_convs(channels, middle))
    main += draw(same_convs(middle, outputs, stride=stride, act=False))
    short = draw(same_convs(channels, outputs, kernel=1, stride=stride, act=False))
    height, width = ((s - 1) // stride + 1 for s in size)
    return Drawn(((Parallel, (main, short)),), outputs, (height, width))


@st.composite
def parallels(draw: st.DrawFn, channels: int, size: Pair) -> Drawn:
    """A 3x3 and a 1x1 convolution and a norm side by side, as in RepVGG."""
    wide = draw(same_convs(channels, channels, kernel=3, act=False))
    narrow = draw(same_convs(channels, channels, kernel=1, act=False))
    norm = ((nn.BatchNorm2d, (channels, 1e-3)),)
    return Drawn(((Parallel, (wide, narrow, norm)),), channels, size)


@st.composite
def blocks(draw: st.DrawFn, channels: int, size: Pair) -> Drawn:
    """One of the above; a sum may have an activation behind it."""
    kinds = [odd_convs, odd_convs, odd_convs, skips, projections, parallels]
    if min(size) >= 4:
        kinds.append(pools)
    drawn = draw(draw(st.sampled_from(kinds))(channels, size))
    if drawn.specs[-1][0] is Parallel and draw(st.booleans()):
        return drawn._replace(specs=(*drawn.specs, (nn.ReLU, ())))
    return drawn


@st.composite
def chains(draw: st.DrawFn) -> tuple[nn.Module, tuple[int, int, int]]:
    """A random network in float64, and its input shape."""
    inputs = draw(CHANNELS)
    height, width = draw(st.integers(5, 13)), draw(st.integers(5, 13))
    drawn = draw(odd_convs(inputs, (height, width)))
    specs = drawn.specs
    for _ in range(draw(st.integers(1, 4))):
        drawn = draw(blocks(drawn.channels, drawn.size))
        specs += drawn.specs
    torch.manual_seed(draw(st.integers(0, 2**20)))
    network = build(specs).double()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.3, 2)
    return network.eval(), (inputs, height, width)
