"""Solve stage 1: where the layers of a stretch without activations are best cut.

Kim et al. 2023, Alg. 1, with two additions: latencies may depend on the activation that
closes the span, and with several costs at once a stretch has several non-dominated cuts.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from operator import add
from typing import NamedTuple

from dpcompress.blueprint import Span
from dpcompress.tables import MERGE, Key, LatencyTable

Costs = tuple[float, ...]  # one per resource, the latency in milliseconds first
SpanCosts = Mapping[Key, Costs]


class Stretch(NamedTuple):
    """The layers between two positions, cut into merged spans: their total costs, and the
    boundaries between them, both ends included."""

    costs: Costs
    boundaries: tuple[int, ...]

    @property
    def latency_ms(self) -> float:
        return self.costs[0]


def fastest(latency: LatencyTable, act_stop: bool = True) -> dict[Span, Stretch]:
    """Find T_opt[i,j] of every merged span in `latency`, and the boundaries that give it.

    >>> import pandas as pd
    >>> rows = {"start": [0, 1, 0], "stop": [1, 2, 2], "latency_ms": [2.0, 1.0, 4.0]}
    >>> fastest(LatencyTable(pd.DataFrame(rows)))[0, 2]
    Stretch(costs=(3.0,), boundaries=(0, 1, 2))

    Args:
        act_stop: whether an activation closes the span, where the table distinguishes.
    """
    costs = span_costs(latency)
    keys = [key for key in costs if key.act_stop == act_stop and key.way == MERGE]
    found = stretches(costs, (key.span for key in keys))
    return {key.span: found[key][0] for key in keys}


def fastest_stretches(times: Mapping[Span, float]) -> dict[Span, Stretch]:
    """Find the fastest stretch between any two positions, from times that do not depend
    on the activation at a span's end."""
    costs = {Key(*span, MERGE, False): (ms,) for span, ms in times.items()}
    starts, stops = {span.start for span in times}, {span.stop for span in times}
    found = stretches(costs, ((i, j) for i in starts for j in stops if i < j))
    return {key.span: best[0] for key, best in found.items()}


def span_costs(latency: LatencyTable) -> dict[Key, Costs]:
    """Take the latencies of a table as the only cost of each span."""
    return {key: (ms,) for key, ms in latency.times().items()}


def stretches(
    costs: SpanCosts, wanted: Iterable[tuple[int, int]]
) -> dict[Key, list[Stretch]]:
    """Find all non-dominated stretches between the wanted positions, by key.

    T_opt[i,j,b] = min(T[i,j,b], min over m of T_opt[i,m,0] + T[m,j,b]), from the merged
    spans in `costs`. Positions that no spans lead between are absent; of two stretches of
    equal costs the one with fewer boundaries is kept.
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
            ending: tuple[list[Stretch], list[Stretch]] = ([], [])  # by act_stop
            for middle, flag, cost in last_parts[stop]:
                if middle == start:
                    ending[flag].append(Stretch(cost, (start, stop)))
                for before in inner.get(middle, ()):
                    total = tuple(map(add, before.costs, cost))
                    ending[flag].append(Stretch(total, (*before.boundaries, stop)))
            inner[stop] = _non_dominated(ending[False])
            if (start, stop) in wanted:
                for flag in (False, True):
                    best = _non_dominated(ending[True]) if flag else inner[stop]
                    if best:
                        found[Key(start, stop, MERGE, flag)] = best
    return found


def _non_dominated(options: list[Stretch]) -> list[Stretch]:
    if len(options) < 2:
        return options
    if len(options[0].costs) == 1:
        return [min(options, key=_rank)]
    kept: list[Stretch] = []
    for new in sorted(options, key=_rank):
        if not any(_no_worse(old.costs, new.costs) for old in kept):
            kept.append(new)
    return kept


def _no_worse(a: Costs, b: Costs) -> bool:
    return all(x <= y for x, y in zip(a, b, strict=True))


def _rank(stretch: Stretch) -> tuple[Costs, int]:
    return stretch.costs, len(stretch.boundaries)
