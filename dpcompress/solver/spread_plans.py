"""Draw plans for the check of a latency table."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np

from dpcompress.blueprint import Blueprint, Plan, Span
from dpcompress.tables import LatencyTable

_COLDNESS = (-8, -4, -2, -1, -0.5, 0, 0.5, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
_DRAWS = 150  # random paths at each coldness


def spread_plans(
    blueprint: Blueprint, latency: LatencyTable, count: int, seed: int = 0
) -> list[Plan]:
    """Draw `count` different plans, evenly spread in predicted latency from the fastest
    to the original; fewer if there are not so many. Activations stay on all boundaries.

    The plans are picked from random paths of spans from position 0 to L. A path is drawn
    with probability proportional to exp(−coldness · latency), exactly, by a backward
    recursion; warm draws are slow plans, cold ones fast.
    """
    times = latency.span_times(blueprint)
    rng = np.random.default_rng(seed)
    scale = blueprint.depth / sum(times[Span(i, i + 1)] for i in range(blueprint.depth))
    fastest = _PathSampler(times, blueprint.depth, 1e6 * scale).draw(rng)
    original = tuple(range(blueprint.depth + 1))
    paths = {fastest, original}
    for coldness in _COLDNESS:
        sampler = _PathSampler(times, blueprint.depth, coldness * scale)
        paths |= {sampler.draw(rng) for _ in range(_DRAWS)}
    sums = {path: _sum(times, path) for path in sorted(paths)}
    chosen = [fastest, original][: max(count, 1)]
    between = np.linspace(sums[fastest], sums[original], max(count, 2))[1:-1]
    for target in between:
        left = [path for path in sums if path not in chosen]
        if left:
            chosen.append(min(left, key=lambda path: abs(sums[path] - target)))
    chosen = sorted(dict.fromkeys(chosen), key=lambda path: sums[path])
    return [
        Plan.build(
            path,
            tuple(p for p in path[1:] if blueprint.has_activation(p)),
            predicted_ms=latency.fixed_ms + sums[path],
            blueprint=blueprint.digest,
            input=blueprint.input,
        )
        for path in chosen
    ]


def _sum(times: Mapping[Span, float], path: Sequence[int]) -> float:
    return sum(times[Span(i, j)] for i, j in pairwise(path))


class _PathSampler:
    """The random paths from position 0 to `depth`, with probability ∝ exp(−cold · ms)."""

    def __init__(self, times: Mapping[Span, float], depth: int, cold: float) -> None:
        stops: dict[int, list[tuple[int, float]]] = defaultdict(list)
        for (start, stop), ms in times.items():
            stops[start].append((stop, ms))
        # log of the sum over all paths from a position to the end
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
        """Draw the positions of a path, 0 and `depth` included."""
        path = [0]
        while path[-1] < self.depth:
            stops, cumulated = self.options[path[-1]]
            at = int(np.searchsorted(cumulated, rng.random(), side="right"))
            path.append(stops[min(at, len(stops) - 1)])
        return tuple(path)
