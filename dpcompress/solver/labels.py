"""The Pareto labels: all non-dominated (costs, importance) of the paths to each node.

Kim et al. 2023, Alg. 2, without its time grid: D[position, flag] holds every path that no
other path beats in all costs and in importance, with a pointer to where it came from.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from dpcompress.solver.bounds import SAFETY, Bound
from dpcompress.solver.graph import ROOT, Floats, Graph, Ints


class TooManyLabels(Exception):
    """The label sets outgrow the memory that they may take."""


@dataclass(frozen=True, eq=False)
class Labels:
    """The N labels of one node, costs ascending.

    costs: N × K. importance, cuts (number of boundaries), edge (the last one taken, −1 at
    the root), origin (which label of that edge's tail): N.
    """

    costs: Floats
    importance: Floats
    cuts: Ints
    edge: Ints
    origin: Ints

    def __len__(self) -> int:
        return len(self.importance)

    def take(self, rows: Ints) -> Labels:
        """Select the labels of these rows."""
        return Labels(
            self.costs[rows],
            self.importance[rows],
            self.cuts[rows],
            self.edge[rows],
            self.origin[rows],
        )


@dataclass(frozen=True, eq=False)
class LabelSets:
    """The labels of all nodes of a graph; those at the last position are plans."""

    graph: Graph
    sets: list[Labels]

    def __len__(self) -> int:
        return sum(map(len, self.sets))

    @cached_property
    def plans(self) -> Labels:
        """The plans that are within the limits and on the frontier, costs ascending."""
        off, on = (self.sets[node] for node in self.graph.ends)
        both = Labels(
            np.concatenate([off.costs, on.costs]),
            np.concatenate([off.importance, on.importance]),
            np.concatenate([off.cuts, on.cuts]),
            np.concatenate([off.edge, on.edge]),
            np.concatenate([off.origin, on.origin]),
        )
        within = (both.costs <= self.graph.at_most).all(axis=1)
        both = both.take(np.flatnonzero(within))
        return both.take(on_staircase(both.costs[:, 0], both.importance, both.cuts))

    def path(self, labels: Labels, row: int) -> list[int]:
        """Trace the edges from the root that make label `row` of `labels`."""
        edges = []
        edge, origin = int(labels.edge[row]), int(labels.origin[row])
        while edge >= 0:
            edges.append(edge)
            before = self.sets[self.graph.tail[edge]]
            edge, origin = int(before.edge[origin]), int(before.origin[origin])
        return edges[::-1]


def label_sets(graph: Graph, bound: Bound | None, max_labels: int) -> LabelSets:
    """Find the label set of every node.

    Args:
        bound: drops labels that cannot lead to the frontier; None keeps all.

    Raises:
        TooManyLabels: there are more than `max_labels`.
    """
    kinds = graph.at_most.size
    nothing = np.zeros(0, dtype=np.int64)
    empty = Labels(np.zeros((0, kinds)), np.zeros(0), nothing, nothing, nothing)
    sets = [empty] * graph.nodes
    none = np.full(1, -1)
    sets[ROOT] = Labels(np.zeros((1, kinds)), np.zeros(1), none + 1, none, none)
    total = 0
    for node in graph.after_root:
        edges = graph.into[node]
        if not edges.size:
            continue
        sets[node] = _labels_of(graph, bound, node, edges, sets)
        total += len(sets[node])
        if total > max_labels:
            raise TooManyLabels
    return LabelSets(graph, sets)


def _labels_of(
    graph: Graph, bound: Bound | None, node: int, edges: Ints, sets: list[Labels]
) -> Labels:
    tails = [sets[tail] for tail in graph.tail[edges]]
    sizes = np.array([len(t) for t in tails])
    edge = np.repeat(edges, sizes)
    costs = np.concatenate([t.costs for t in tails])
    for part in range(graph.cuts[edges].max()):
        costs += np.repeat(graph.parts[edges, part], sizes, axis=0)
    importance = np.concatenate([t.importance for t in tails]) + graph.importance[edge]
    cuts = np.concatenate([t.cuts for t in tails]) + graph.cuts[edge]
    origin = np.arange(len(edge)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    labels = Labels(costs, importance, cuts, edge, origin)
    if bound is not None and len(labels):
        labels = labels.take(np.flatnonzero(bound.keeps(node, costs, importance)))
    # A cost that stays within its limit whatever follows is no reason to keep a label.
    harmless = graph.at_most * (1 - SAFETY) - graph.most[node]
    harmless[0] = -np.inf
    return labels.take(non_dominated(labels, harmless))


def non_dominated(labels: Labels, harmless: Floats) -> Ints:
    """Find the rows that no other row beats or equals in every cost and in importance,
    costs ascending; of equal rows the one with the fewest boundaries stays.

    Args:
        harmless: K costs up to which a row is as good as any.
    """
    if labels.costs.shape[1] == 1:
        return on_staircase(labels.costs[:, 0], labels.importance, labels.cuts)
    costs = np.maximum(labels.costs, harmless)
    order = np.lexsort((labels.cuts, -labels.importance, *costs.T[::-1]))
    return order[_skyline(np.column_stack([costs, -labels.importance])[order, 1:])]


def on_staircase(cost: Floats, importance: Floats, cuts: Ints) -> Ints:
    """Find the non-dominated rows for a single cost, ascending; see `non_dominated`."""
    order = np.lexsort((cuts, -importance, cost))
    best = np.maximum.accumulate(importance[order])
    return order[np.append(True, best[1:] > best[:-1])[: len(order)]]


def _skyline(points: Floats, block: int = 128) -> Ints:
    """Find the rows that no earlier row is less than or equal to in every column."""
    kept = np.zeros(0, dtype=np.int64)
    for begin in range(0, len(points), block):
        rows = np.arange(begin, min(begin + block, len(points)))
        rows = rows[~_covered(points[rows], points[kept])]
        own = points[rows]
        below = (own[:, None] <= own[None]).all(axis=2)
        rows = rows[~np.triu(below, 1).any(axis=0)]
        kept = np.append(kept, rows)
    return kept


def _covered(points: Floats, by: Floats) -> np.ndarray:
    covered = np.ones((len(by), len(points)), dtype=bool)
    for column in range(points.shape[1]):
        covered &= by[:, column, None] <= points[:, column]
    return np.any(covered, axis=0)
