"""Pareto label sets: all non-dominated (costs, importance) of the ways to each node.

Kim et al. 2023, Alg. 2, without its time grid: D[position, flag] holds every way that no
other way beats in all costs and in importance, with a pointer to where it came from.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dpcompress.solver.bounds import SAFETY, Bound
from dpcompress.solver.graph import Floats, Graph, Ints


class TooManyLabels(Exception):
    """The label sets outgrow the memory that they may take."""


@dataclass(frozen=True, eq=False)
class Labels:
    """Labels of one node, costs ascending.

    costs: N × K. importance, cuts (number of boundaries), edge (the last one taken),
    origin (which label of that edge's tail): N.
    """

    costs: Floats
    importance: Floats
    cuts: Ints
    edge: Ints
    origin: Ints

    def __len__(self) -> int:
        return len(self.importance)

    def take(self, rows: Ints) -> Labels:
        return Labels(
            self.costs[rows],
            self.importance[rows],
            self.cuts[rows],
            self.edge[rows],
            self.origin[rows],
        )


def label_sets(graph: Graph, bound: Bound | None, max_labels: int) -> list[Labels]:
    """The label set of every node.

    Args:
        bound: drops labels that cannot lead to the frontier; None keeps all.

    Raises:
        TooManyLabels: there are more than `max_labels`.
    """
    kinds = graph.at_most.size
    nothing = np.zeros(0, dtype=np.int64)
    empty = Labels(np.zeros((0, kinds)), np.zeros(0), nothing, nothing, nothing)
    sets = [empty] * graph.nodes
    start = np.full(1, -1)
    sets[Graph.ROOT] = Labels(np.zeros((1, kinds)), np.zeros(1), start + 1, start, start)
    total = 0
    for node in range(2, graph.nodes):
        edges = graph.into[node]
        if not edges.size:
            continue
        sets[node] = found = _labels_of(graph, bound, node, edges, sets)
        total += len(found)
        if total > max_labels:
            raise TooManyLabels
    return sets


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
    """Rows that no other row beats or equals in every cost and in importance, costs
    ascending; of equal rows the one with the fewest boundaries."""
    if labels.costs.shape[1] == 1:
        return on_staircase(labels.costs[:, 0], labels.importance, labels.cuts)
    costs = np.maximum(labels.costs, harmless)
    order = np.lexsort((labels.cuts, -labels.importance, *costs.T[::-1]))
    return order[_skyline(np.column_stack([costs, -labels.importance])[order, 1:])]


def on_staircase(cost: Floats, importance: Floats, cuts: Ints) -> Ints:
    """`non_dominated` for one cost."""
    order = np.lexsort((cuts, -importance, cost))
    best = np.maximum.accumulate(importance[order])
    return order[np.append(True, best[1:] > best[:-1])[: len(order)]]


def _skyline(points: Floats, block: int = 128) -> Ints:
    """Rows that are not at least an earlier row in every column."""
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
