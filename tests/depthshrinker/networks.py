"""Small networks with blocks, latency tables to order, and a brute-force planner."""

from __future__ import annotations

import math
import random
from itertools import combinations, pairwise

import pandas as pd
import torch
from torch import Tensor, nn

from dpcompress.blueprint import Blueprint, candidates
from dpcompress.tables import LatencyTable
from dpcompress.training import seeded


class Inverted(nn.Module):
    """MobileNetV2's block: expand, depthwise, linear projection."""

    def __init__(self, ins: int, outs: int, stride: int = 1) -> None:
        super().__init__()
        wide = 2 * ins
        self.body = nn.Sequential(
            *(nn.Conv2d(ins, wide, 1, bias=False), nn.BatchNorm2d(wide), nn.ReLU6()),
            nn.Conv2d(wide, wide, 3, stride, 1, groups=wide, bias=False),
            *(nn.BatchNorm2d(wide), nn.ReLU6()),
            *(nn.Conv2d(wide, outs, 1, bias=False), nn.BatchNorm2d(outs)),
        )
        self.is_residual = stride == 1 and ins == outs

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.is_residual else self.body(x)


class Basic(nn.Module):
    """ResNet's block, with a projection where its shape changes."""

    def __init__(self, ins: int, outs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(ins, outs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outs)
        self.conv2 = nn.Conv2d(outs, outs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outs)
        self.relu = nn.ReLU(inplace=True)
        self.down = (
            nn.Sequential(
                nn.Conv2d(ins, outs, 1, stride, bias=False), nn.BatchNorm2d(outs)
            )
            if stride > 1 or ins != outs
            else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return self.relu(y + self.down(x))


def inverted(classes: int = 10) -> nn.Sequential:
    """Layers 1 (stem), 2-4 (residual), 5-7 (strided), 8-10 (residual), 11 (head)."""
    with seeded("inverted"):
        return nn.Sequential(
            *(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU6()),
            *(Inverted(8, 8), Inverted(8, 12, stride=2), Inverted(12, 12)),
            *(nn.Conv2d(12, 16, 1), nn.ReLU6()),
            *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, classes)),
        ).eval()


def basic(classes: int = 10) -> nn.Sequential:
    """Layers 1 (stem, bias and no norm), 2-3, 4-5 (strided, with projection)."""
    with seeded("basic"):
        return nn.Sequential(
            *(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU()),
            *(Basic(8, 8), Basic(8, 12, stride=2)),
            *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, classes)),
        ).eval()


def plain(classes: int = 10) -> nn.Sequential:
    """Three convolutions in a row, without residuals; a PReLU."""
    with seeded("plain"):
        return nn.Sequential(
            *(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.PReLU(4)),
            *(nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.Tanh()),
            *(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU()),
            *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, classes)),
        ).eval()


def random_table(blueprint: Blueprint, seed: int) -> LatencyTable:
    """Every candidate span, with and without a closing activation, at random times."""
    rng = random.Random(seed)
    rows = [
        {
            "start": i,
            "stop": j,
            "act_stop": flag,
            "latency_ms": rng.uniform(0.5, 1.0 + 0.8 * (j - i)) + 0.1 * flag,
        }
        for i, j in candidates(blueprint)
        for flag in (0, 1)
    ]
    return table_of(blueprint, rows)


def table_of(blueprint: Blueprint, rows: list[dict[str, float]]) -> LatencyTable:
    header = {
        "blueprint": blueprint.digest,
        "input": "x".join(map(str, blueprint.input)),
        "fixed_ms": 0.25,
    }
    return LatencyTable(pd.DataFrame(rows), {k: str(v) for k, v in header.items()})


def least_ms(blueprint: Blueprint, table: LatencyTable, kept: tuple[int, ...]) -> float:
    """The fastest of all ways to cut the network that keep these activations."""
    frame = table.frame
    keys = zip(frame["start"], frame["stop"], frame["act_stop"], strict=True)
    times = dict(zip(keys, frame["latency_ms"], strict=True))
    free = [p for p in range(1, blueprint.depth) if p not in kept]
    best = math.inf
    for count in range(len(free) + 1):
        for cuts in combinations(free, count):
            edges = sorted({0, blueprint.depth, *kept, *cuts})
            parts = [(i, j, int(j in kept)) for i, j in pairwise(edges)]
            if all(part in times for part in parts):
                best = min(best, sum(times[part] for part in parts))
    return table.fixed_ms + best


def images(size: tuple[int, int, int], count: int = 4) -> Tensor:
    return torch.randn(count, *size, generator=torch.Generator().manual_seed(1))
