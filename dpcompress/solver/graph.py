"""Stage 2 as a graph: nodes are (position, activation flag), edges neighbours of B."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpcompress.solver.constraints import Forced, Limit
from dpcompress.solver.stage1 import Costs, SpanCosts, stretches
from dpcompress.tables import MERGE, ImportanceTable, Key

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Graph:
    """Edges in order of their head; node 2·position + flag, the root is (0, 1).

    parts: E × Q × K, the costs of the spans of each edge's stretch, padded with zeros;
        adding them one by one keeps a plan's cost the sum over its spans in order.
    boundaries: the positions that each edge's stretch is cut at.
    at_most: K, infinite for the latency, which comes first.
    """

    depth: int
    tail: Ints
    head: Ints
    importance: Floats
    parts: Floats
    boundaries: tuple[tuple[int, ...], ...]
    at_most: Floats

    ROOT = 1

    @property
    def nodes(self) -> int:
        return 2 * self.depth + 2

    @cached_property
    def costs(self) -> Floats:
        """E × K: the parts of each edge, added up."""
        return self.parts.sum(axis=1)

    @cached_property
    def cuts(self) -> Ints:
        """E: boundaries that each edge adds."""
        return np.array([len(b) - 1 for b in self.boundaries], dtype=np.int64)

    @cached_property
    def into(self) -> list[Ints]:
        """For each node the edges that end there."""
        return self._grouped(self.head)

    @cached_property
    def out_of(self) -> list[Ints]:
        """For each node the edges that begin there."""
        return self._grouped(self.tail)

    def _grouped(self, key: Ints) -> list[Ints]:
        order = np.argsort(key, kind="stable")
        ends = np.searchsorted(key[order], np.arange(self.nodes + 1))
        return [order[a:b] for a, b in zip(ends, ends[1:], strict=False)]

    @cached_property
    def least(self) -> Floats:
        """Nodes × K: the least of each cost, separately, from the node to the end."""
        return self._extreme(np.min, np.inf)

    @cached_property
    def most(self) -> Floats:
        """Nodes × K: the most of each cost, separately, from the node to the end."""
        return self._extreme(np.max, -np.inf)

    def _extreme(self, choose: Any, worst: float) -> Floats:
        value = np.full((self.nodes, self.at_most.size), worst)
        value[-2:] = 0.0
        for node in range(self.nodes - 3, -1, -1):
            edges = self.out_of[node]
            if edges.size:
                value[node] = choose(self.costs[edges] + value[self.head[edges]], axis=0)
        return value


def build(
    spans: SpanCosts,
    importance: ImportanceTable,
    limits: Sequence[Limit] = (),
    forced: Forced | None = None,
) -> Graph:
    """All edges that lie on some way from (0, 1) to the last position."""
    forced = forced or Forced()
    sums = [limit for limit in limits if limit.adds_up]
    available = _available(spans, limits, forced)
    depth = importance.depth
    rows = [
        (key.start, key.stop, int(key.act_start), int(key.act_stop), value)
        for key, value in importance.scores().items()
        if key.way == MERGE
    ]
    rows = [r for r in rows if forced.allows_stretch(r[0], r[1], r[3])]
    ways = stretches(available, ((r[0], r[1]) for r in rows))
    rows = _on_the_way(depth, [r for r in rows if _key(r) in ways])
    rows.sort(key=lambda r: (r[1], r[3], r[0], r[2]))
    edges = [(r, way.boundaries) for r in rows for way in ways[_key(r)]]
    width = max((len(cuts) - 1 for _, cuts in edges), default=1)
    parts = np.zeros((len(edges), width, 1 + len(sums)))
    for e, (row, cuts) in enumerate(edges):
        for q, (start, stop) in enumerate(zip(cuts, cuts[1:], strict=False)):
            parts[e, q] = available[
                Key(start, stop, MERGE, stop == row[1] and bool(row[3]))
            ]
    return Graph(
        depth,
        np.array([2 * r[0] + r[2] for r, _ in edges], dtype=np.int64),
        np.array([2 * r[1] + r[3] for r, _ in edges], dtype=np.int64),
        np.array([r[4] for r, _ in edges], dtype=float),
        parts,
        tuple(cuts for _, cuts in edges),
        np.array([np.inf, *(limit.at_most for limit in sums)]),
    )


def _available(spans: SpanCosts, limits: Sequence[Limit], forced: Forced) -> SpanCosts:
    """The spans that no decision excludes and that no limit is too small for."""
    kept: dict[Key, Costs] = {}
    for key, cost in spans.items():
        if not forced.allows_span(key.start, key.stop):
            continue
        if all(limit.costs.get(key, np.nan) <= limit.at_most for limit in limits):
            kept[key] = (*cost, *(limit.costs[key] for limit in limits if limit.adds_up))
    return kept


Row = tuple[int, int, int, int, float]


def _key(row: Row) -> Key:
    return Key(row[0], row[1], MERGE, bool(row[3]))


def _on_the_way(depth: int, rows: list[Row]) -> list[Row]:
    """The rows that the root reaches and that reach the end."""
    forward = {(0, 1)}
    for row in sorted(rows, key=lambda r: r[1]):
        if (row[0], row[2]) in forward:
            forward.add((row[1], row[3]))
    backward = {(depth, 0), (depth, 1)}
    for row in sorted(rows, key=lambda r: -r[0]):
        if (row[1], row[3]) in backward:
            backward.add((row[0], row[2]))
    return [r for r in rows if (r[0], r[2]) in forward and (r[1], r[3]) in backward]
