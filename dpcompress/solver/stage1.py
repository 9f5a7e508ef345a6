"""Stage 1: the fastest way to run a stretch whose activations are all gone.

Kim et al. 2023, Alg. 1, with two additions: latencies may depend on the activation that
closes the span, and with several costs at once a stretch has a set of non-dominated ways.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from dpcompress.blueprint import Span
from dpcompress.tables import LatencyTable

Costs = tuple[float, ...]
SpanCosts = Mapping[tuple[int, int, int], Costs]
"""(start, stop, act_stop) → costs of the merged convolution, one per resource."""


class Stretch(NamedTuple):
    """One way to run the layers between two positions: total costs, and the boundaries
    at which it is cut, both ends included."""

    costs: Costs
    boundaries: tuple[int, ...]

    @property
    def latency_ms(self) -> float:
        return self.costs[0]


def fastest(latency: LatencyTable, act_stop: int = 1) -> dict[Span, Stretch]:
    """T_opt[i,j] of every span in `latency`, with the boundaries that give it.

    Args:
        act_stop: whether an activation closes the span, where the table distinguishes.
    """
    costs = span_costs(latency)
    rows = [Span(i, j) for i, j, b in costs if b == act_stop]
    found = stretches(costs, rows)
    return {span: found[(*span, act_stop)][0] for span in rows}


def span_costs(latency: LatencyTable) -> dict[tuple[int, int, int], Costs]:
    """The table's latencies by (start, stop, act_stop)."""
    frame = latency.frame
    flags = (
        frame["act_stop"].fillna(-1).tolist()
        if "act_stop" in frame
        else [-1] * len(frame)
    )
    costs: dict[tuple[int, int, int], Costs] = {}
    for start, stop, time, flag in zip(
        frame["start"].tolist(),
        frame["stop"].tolist(),
        frame["latency_ms"].tolist(),
        flags,
        strict=True,
    ):
        for b in (0, 1) if flag < 0 else (int(flag),):
            costs[start, stop, b] = (time,)
    return costs


def stretches(
    costs: SpanCosts, wanted: Iterable[tuple[int, int]]
) -> dict[tuple[int, int, int], list[Stretch]]:
    """All non-dominated ways to run each wanted stretch, by (start, stop, act_stop).

    T_opt[i,j,b] = min(T[i,j,b], min over m of T_opt[i,m,0] + T[m,j,b]); a stretch that
    the spans do not cover is absent. Of equal ways the one with fewer boundaries stays.
    """
    wanted = set(wanted)
    reach: dict[int, int] = defaultdict(int)
    for start, stop in wanted:
        reach[start] = max(reach[start], stop)
    last_parts: dict[int, list[tuple[int, int, Costs]]] = defaultdict(list)
    for (middle, stop, flag), cost in costs.items():
        last_parts[stop].append((middle, flag, cost))
    found: dict[tuple[int, int, int], list[Stretch]] = {}
    for start, end in reach.items():
        inner: dict[int, list[Stretch]] = {}
        for stop in range(start + 1, end + 1):
            ways: tuple[list[Stretch], list[Stretch]] = ([], [])
            for middle, flag, cost in last_parts[stop]:
                if middle == start:
                    ways[flag].append(Stretch(cost, (start, stop)))
                for before in inner.get(middle, ()):
                    total = tuple(a + b for a, b in zip(before.costs, cost, strict=True))
                    ways[flag].append(Stretch(total, (*before.boundaries, stop)))
            inner[stop] = _non_dominated(ways[0])
            if (start, stop) in wanted:
                for flag in (0, 1):
                    best = inner[stop] if flag == 0 else _non_dominated(ways[1])
                    if best:
                        found[start, stop, flag] = best
    return found


def _non_dominated(ways: list[Stretch]) -> list[Stretch]:
    if len(ways) < 2:
        return ways
    if len(ways[0].costs) == 1:
        return [min(ways, key=_rank)]
    kept: list[Stretch] = []
    for way in sorted(ways, key=_rank):
        if not any(
            all(a <= b for a, b in zip(k.costs, way.costs, strict=True)) for k in kept
        ):
            kept.append(way)
    return kept


def _rank(way: Stretch) -> tuple[Costs, int]:
    return way.costs, len(way.boundaries)
