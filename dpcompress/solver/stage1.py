"""Stage 1: the fastest way to run a stretch whose activations are all gone.

Kim et al. 2023, Alg. 1, with two additions: latencies may depend on the activation that
closes the span, and with several costs at once a stretch has a set of non-dominated ways.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from dpcompress.blueprint import Span
from dpcompress.tables import MERGE, Key, LatencyTable

Costs = tuple[float, ...]
SpanCosts = Mapping[Key, Costs]
"""Costs of a span, one per resource; keys of other ways than "merge" are no parts of
stretches."""


class Stretch(NamedTuple):
    """One way to run the layers between two positions: total costs, and the boundaries
    at which it is cut, both ends included."""

    costs: Costs
    boundaries: tuple[int, ...]

    @property
    def latency_ms(self) -> float:
        return self.costs[0]


def fastest(latency: LatencyTable, act_stop: bool = True) -> dict[Span, Stretch]:
    """T_opt[i,j] of every span in `latency`, with the boundaries that give it.

    Args:
        act_stop: whether an activation closes the span, where the table distinguishes.
    """
    costs = span_costs(latency)
    keys = [key for key in costs if key.act_stop == act_stop and key.way == MERGE]
    found = stretches(costs, (key.span for key in keys))
    return {key.span: found[key][0] for key in keys}


def fastest_stretches(times: Mapping[Span, float]) -> dict[Span, Stretch]:
    """The fastest stretch between any two positions that `times` lead between, where a
    span takes the same with an activation at its end as without."""
    costs = {Key(*span, MERGE, False): (ms,) for span, ms in times.items()}
    starts, stops = {span.start for span in times}, {span.stop for span in times}
    found = stretches(costs, ((i, j) for i in starts for j in stops if i < j))
    return {key.span: ways[0] for key, ways in found.items()}


def span_costs(latency: LatencyTable) -> dict[Key, Costs]:
    """The table's latencies, each as the only cost of its span."""
    return {key: (ms,) for key, ms in latency.times().items()}


def stretches(
    costs: SpanCosts, wanted: Iterable[tuple[int, int]]
) -> dict[Key, list[Stretch]]:
    """All non-dominated ways to run each wanted stretch, by its key.

    T_opt[i,j,b] = min(T[i,j,b], min over m of T_opt[i,m,0] + T[m,j,b]); a stretch that
    the spans do not cover is absent. Of equal ways the one with fewer boundaries stays.
    """
    wanted = set(wanted)
    reach: dict[int, int] = defaultdict(int)
    for start, stop in wanted:
        reach[start] = max(reach[start], stop)
    last_parts: dict[int, list[tuple[int, bool, Costs]]] = defaultdict(list)
    for key, cost in costs.items():
        if key.way == MERGE:
            last_parts[key.stop].append((key.start, key.act_stop, cost))
    found: dict[Key, list[Stretch]] = {}
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
                for flag in (False, True):
                    best = _non_dominated(ways[1]) if flag else inner[stop]
                    if best:
                        found[Key(start, stop, MERGE, flag)] = best
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
