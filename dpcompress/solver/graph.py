"""The graph of stage 2: nodes are (position, activation or not), edges stretches.

A path from the root to the last position is a plan; see docs/method.md §3.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dpcompress.solver.problem import Problem
from dpcompress.solver.stage1 import Costs, SpanCosts, Stretch, span_costs, stretches
from dpcompress.tables import MERGE, Key

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def node_of(position: int, active: bool) -> int:
    """Number a node: nodes are in order of their position."""
    return 2 * position + active


def position_of(node: int) -> int:
    """Return the position of a node."""
    return node // 2


def is_active(node: int) -> bool:
    """Say whether an activation stands at a node."""
    return node % 2 == 1


ROOT = node_of(0, active=True)  # position 0 counts as active, by convention


@dataclass(frozen=True, eq=False)
class Graph:
    """The E edges, in order of their head, with K costs each, the latency first.

    tail, head: the nodes that each edge leads from and to.
    way: how the layers of each edge are run.
    boundaries: the positions that each edge's stretch is cut at, both ends included.
    parts: E × Q × K, the costs of the spans of each edge's stretch, padded with zeros;
        adding them one by one keeps a plan's cost the sum over its spans in order.
    at_most: K, infinite for the latency.
    """

    depth: int
    tail: Ints
    head: Ints
    way: tuple[str, ...]
    boundaries: tuple[tuple[int, ...], ...]
    importance: Floats
    parts: Floats
    at_most: Floats

    @property
    def nodes(self) -> int:
        """The number of nodes, those that no edge touches included."""
        return node_of(self.depth + 1, active=False)

    @property
    def ends(self) -> tuple[int, int]:
        """The nodes of the last position."""
        return node_of(self.depth, active=False), node_of(self.depth, active=True)

    @property
    def after_root(self) -> range:
        """The nodes but those of position 0, in order: tails come before heads."""
        return range(node_of(1, active=False), self.nodes)

    @property
    def before_ends(self) -> range:
        """The nodes but the ends, backwards: heads come before tails."""
        return range(self.ends[0] - 1, -1, -1)

    @cached_property
    def costs(self) -> Floats:
        """The costs of each edge, its parts added up: E × K."""
        return self.parts.sum(axis=1)

    @cached_property
    def cuts(self) -> Ints:
        """The number of boundaries that each edge adds: E."""
        return np.array([len(b) - 1 for b in self.boundaries], dtype=np.int64)

    @cached_property
    def into(self) -> list[Ints]:
        """The edges that end at each node."""
        return self._grouped(self.head)

    @cached_property
    def out_of(self) -> list[Ints]:
        """The edges that begin at each node."""
        return self._grouped(self.tail)

    def _grouped(self, key: Ints) -> list[Ints]:
        order = np.argsort(key, kind="stable")
        ends = np.searchsorted(key[order], np.arange(self.nodes + 1))
        return [order[a:b] for a, b in pairwise(ends)]

    @cached_property
    def least(self) -> Floats:
        """The least of each cost, separately, from each node to the end: nodes × K."""
        return self._extreme(np.min, np.inf)

    @cached_property
    def most(self) -> Floats:
        """The most of each cost, separately, from each node to the end: nodes × K."""
        return self._extreme(np.max, -np.inf)

    def _extreme(self, choose: Any, worst: float) -> Floats:
        value = np.full((self.nodes, self.at_most.size), worst)
        value[list(self.ends)] = 0.0
        for node in self.before_ends:
            edges = self.out_of[node]
            if edges.size:
                value[node] = choose(self.costs[edges] + value[self.head[edges]], axis=0)
        return value


class Row(NamedTuple):
    """The parts of an importance row: the nodes that it joins, the key of the latency
    that belongs to it, and what it is worth."""

    tail: int
    head: int
    key: Key
    importance: float


def build_graph(problem: Problem) -> Graph:
    """Build the graph of all edges on a path from the root to the last position.

    A row of the importance table that merges becomes one edge for each non-dominated
    stretch (stage 1); a row of another way, whose layers are not cut, becomes one edge.
    """
    available = _available(problem)
    watched = [limit.at_most for limit in problem.limits if limit.adds_up]
    rows = _rows(problem)
    options = _options(available, rows)
    rows = _on_a_path(problem.importance.depth, [r for r in rows if r.key in options])
    rows.sort(key=lambda row: (row.head, row.tail))
    edges = [(row, stretch.boundaries) for row in rows for stretch in options[row.key]]
    width = max((len(boundaries) - 1 for _, boundaries in edges), default=1)
    parts = np.zeros((len(edges), width, 1 + len(watched)))
    for edge, (row, boundaries) in enumerate(edges):
        _, end, way, active = row.key
        for part, (start, stop) in enumerate(pairwise(boundaries)):
            parts[edge, part] = available[Key(start, stop, way, active and stop == end)]
    return Graph(
        depth=problem.importance.depth,
        tail=np.array([row.tail for row, _ in edges], dtype=np.int64),
        head=np.array([row.head for row, _ in edges], dtype=np.int64),
        way=tuple(row.key.way for row, _ in edges),
        boundaries=tuple(boundaries for _, boundaries in edges),
        importance=np.array([row.importance for row, _ in edges], dtype=float),
        parts=parts,
        at_most=np.array([np.inf, *watched]),
    )


def _available(problem: Problem) -> SpanCosts:
    """Find the spans that no decision excludes and that no limit is too small for."""
    limits, kept = problem.limits, dict[Key, Costs]()
    for key, cost in span_costs(problem.latency).items():
        if not problem.forced.allows_span(key.start, key.stop):
            continue
        if all(limit.costs.get(key, np.nan) <= limit.at_most for limit in limits):
            kept[key] = (*cost, *(limit.costs[key] for limit in limits if limit.adds_up))
    return kept


def _rows(problem: Problem) -> list[Row]:
    """Read the importance rows that no decision excludes."""
    return [
        Row(
            node_of(start, act_start),
            node_of(stop, act_stop),
            Key(start, stop, way, act_stop),
            importance,
        )
        for (start, stop, way, act_start, act_stop), importance in (
            problem.importance.scores().items()
        )
        if problem.forced.allows_stretch(start, stop, act_stop)
    ]


def _options(available: SpanCosts, rows: list[Row]) -> dict[Key, list[Stretch]]:
    """Find how the layers of each row can be run: as stretches, or in one piece."""
    keys = {row.key for row in rows}
    found = stretches(available, {key.span for key in keys if key.way == MERGE})
    for key in keys & available.keys():
        if key.way != MERGE:
            found[key] = [Stretch(available[key], (key.start, key.stop))]
    return found


def _on_a_path(depth: int, rows: list[Row]) -> list[Row]:
    """Find the rows that the root leads to and that lead to the last position."""
    forward = {ROOT}
    for row in sorted(rows, key=lambda row: row.head):
        if row.tail in forward:
            forward.add(row.head)
    backward = {node_of(depth, active) for active in (False, True)}
    for row in sorted(rows, key=lambda row: -row.tail):
        if row.head in backward:
            backward.add(row.tail)
    return [row for row in rows if row.tail in forward and row.head in backward]
