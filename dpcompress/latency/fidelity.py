"""How well a table's sums predict whole networks: which plans to try, and statistics."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from dpcompress.blueprint import Blueprint, Plan, Span
from dpcompress.tables import LatencyTable

_COLDNESS = (-8, -4, -2, -1, -0.5, 0, 0.5, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
_WALKS = 150


@dataclass(frozen=True)
class CheckRun:
    """A network that was predicted and then measured.

    table_ms, predicted_ms: by the table as it was measured, and as it was corrected by
    other networks; fixed part included. spread_ms: half the interquartile range.
    """

    boundaries: tuple[int, ...]
    table_ms: float
    predicted_ms: float
    measured_ms: float
    spread_ms: float

    @property
    def error(self) -> float:
        """Signed, relative to what was measured."""
        return self.predicted_ms / self.measured_ms - 1


@dataclass(frozen=True)
class Fidelity:
    """Predictions against measurements, over `runs`, none of which made the table."""

    runs: tuple[CheckRun, ...]

    @property
    def mean_error(self) -> float:
        """Mean absolute error, relative to the measured time."""
        return float(np.mean([abs(run.error) for run in self.runs]))

    @property
    def worst(self) -> CheckRun:
        return max(self.runs, key=lambda run: abs(run.error))

    @property
    def bias(self) -> float:
        """Mean signed error: above 0 the table predicts too much."""
        return float(np.mean([run.error for run in self.runs]))

    @property
    def tau(self) -> float:
        """Kendall's τ-b between predicted and measured order; nan without an order."""
        predicted = [run.predicted_ms for run in self.runs]
        return kendall(predicted, [run.measured_ms for run in self.runs])

    @property
    def _uncorrected(self) -> list[float]:
        return [run.table_ms / run.measured_ms - 1 for run in self.runs]

    @property
    def summary(self) -> dict[str, Any]:
        return {
            "networks": len(self.runs),
            "mean_error": self.mean_error,
            "worst_error": self.worst.error,
            "bias": self.bias,
            "kendall_tau": self.tau,
            "uncorrected_mean_error": float(np.mean(np.abs(self._uncorrected))),
            "uncorrected_worst_error": float(max(self._uncorrected, key=abs)),
        }

    @property
    def sentence(self) -> str:
        return (
            f"{len(self.runs)} networks: the prediction is off by "
            f"{self.mean_error:.1%} on average, at worst by {self.worst.error:+.1%} "
            f"({self.worst.measured_ms:.3f} ms measured); Kendall's tau {self.tau:.3f}"
        )

    def to_data(self) -> dict[str, Any]:
        """Plain data: the summary and all runs."""
        return {**self.summary, "runs": [asdict(run) for run in self.runs]}


def kendall(a: Sequence[float], b: Sequence[float]) -> float:
    """Kendall's τ-b: 1 if both order alike, −1 if oppositely; nan if one is constant."""
    x, y = (np.sign(np.subtract.outer(v, v)) for v in (a, b))
    ties = np.sqrt((x * x).sum() * (y * y).sum())
    return float((x * y).sum() / ties) if ties else float("nan")


def spread_plans(
    blueprint: Blueprint, latency: LatencyTable, count: int, seed: int = 0
) -> list[Plan]:
    """`count` different plans, evenly spread in predicted latency from the fastest to
    the original; fewer if there are not so many. Activations stay on all boundaries.

    They are picked from random ways through the chain. A way is drawn with probability
    proportional to exp(−coldness · latency), exactly, by a backward recursion; warm draws
    are slow plans, cold ones fast.
    """
    times = latency.span_times(blueprint)
    rng = np.random.default_rng(seed)
    scale = blueprint.depth / sum(times[Span(i, i + 1)] for i in range(blueprint.depth))
    fastest = _Walk(times, blueprint.depth, 1e6 * scale).draw(rng)
    original = tuple(range(blueprint.depth + 1))
    ways = {fastest, original}
    for coldness in _COLDNESS:
        walk = _Walk(times, blueprint.depth, coldness * scale)
        ways |= {walk.draw(rng) for _ in range(_WALKS)}
    sums = {way: _sum(times, way) for way in sorted(ways)}
    chosen = [fastest, original][: max(count, 1)]
    between = np.linspace(sums[fastest], sums[original], max(count, 2))[1:-1]
    for target in between:
        left = [way for way in sums if way not in chosen]
        if left:
            chosen.append(min(left, key=lambda way: abs(sums[way] - target)))
    chosen = sorted(dict.fromkeys(chosen), key=lambda way: sums[way])
    return [
        Plan.build(
            way,
            tuple(p for p in way[1:] if blueprint.has_activation(p)),
            predicted_ms=latency.fixed_ms + sums[way],
            blueprint=blueprint.digest,
            input=blueprint.input,
        )
        for way in chosen
    ]


def _sum(times: Mapping[Span, float], way: Sequence[int]) -> float:
    return sum(times[Span(i, j)] for i, j in zip(way, way[1:], strict=False))


class _Walk:
    """Draws ways from 0 to `depth` with probability ∝ exp(−cold · latency)."""

    def __init__(self, times: Mapping[Span, float], depth: int, cold: float) -> None:
        stops: dict[int, list[tuple[int, float]]] = defaultdict(list)
        for (start, stop), ms in times.items():
            stops[start].append((stop, ms))
        # log of the sum over all ways from a position to the end
        weight = {depth: 0.0}
        self.depth = depth
        self.options: dict[int, tuple[list[int], np.ndarray]] = {}
        for start in sorted(stops, reverse=True):
            ahead = [(stop, ms) for stop, ms in stops[start] if stop in weight]
            logs = np.array([weight[stop] - cold * ms for stop, ms in ahead])
            weight[start] = float(np.logaddexp.reduce(logs))
            chances = np.exp(logs - weight[start])
            cumulated = np.cumsum(chances / chances.sum())
            self.options[start] = [stop for stop, _ in ahead], cumulated

    def draw(self, rng: np.random.Generator) -> tuple[int, ...]:
        way = [0]
        while way[-1] < self.depth:
            stops, cumulated = self.options[way[-1]]
            at = int(np.searchsorted(cumulated, rng.random(), side="right"))
            way.append(stops[min(at, len(stops) - 1)])
        return tuple(way)
