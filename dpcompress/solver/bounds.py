"""Bound what labels can still become, to drop those that cannot reach the frontier.

For weights (w, λ) the best completion of a node, the most of w·importance − λ·costs, is a
longest path. With the slopes λ of the frontier's hull this bounds what a label can still
become: its *loss* is how far below the hull its best completion stays. Labels of small
loss give good plans; the staircase of these plans says which loss can still matter; once
all labels below that were kept, the frontier is exact.
(Lagrangian bounding, as for the constrained shortest path: Handler and Zang 1980.)
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from dpcompress.solver.graph import ROOT, Floats, Graph

SAFETY = 1e-9  # relative slack for rounding: bounds never drop a label worth keeping
MAX_SLOPES = 1024
MAX_WEIGHTS = 64
FEASIBLE_WEIGHTS = 12


def sweep(graph: Graph, weights: Floats) -> tuple[Floats, Floats, Floats]:
    """Find the best path from every node to the end, for each of P weights.

    Args:
        weights: P × (1 + K), of the importance, then of each cost.

    Returns:
        The path's value, nodes × P; the costs, P × K, and importance, P, of the root's.
    """
    count, kinds = len(weights), graph.at_most.size
    value = np.zeros((graph.nodes, count))
    costs = np.zeros((graph.nodes, count, kinds))
    importance = np.zeros((graph.nodes, count))
    each = np.arange(count)
    for node in graph.before_ends:
        edges = graph.out_of[node]
        if not edges.size:
            continue
        heads = graph.head[edges]
        gains = graph.importance[edges, None] * weights[:, 0]
        values = gains - graph.costs[edges] @ weights[:, 1:].T + value[heads]
        best = values.argmax(axis=0)
        value[node] = values[best, each]
        costs[node] = graph.costs[edges[best]] + costs[heads[best], each]
        importance[node] = graph.importance[edges[best]] + importance[heads[best], each]
    return value, costs[ROOT], importance[ROOT]


@dataclass(frozen=True)
class Bound:
    """The test that a label with costs c and importance v must pass at node u.

    The label stays if v − slopes[p]·c ≥ floor[p, u] for some p: its loss is allowed. It
    also stays if fresh[q]·c < start[q, u] for all q: it may beat the fastest known plan.

    slopes: P × K. floor: P × nodes. fresh: Q × K. start: Q × nodes.
    """

    graph: Graph
    slopes: Floats
    floor: Floats
    fresh: Floats
    start: Floats

    def keeps(self, node: int, costs: Floats, importance: Floats) -> NDArray[np.bool_]:
        """Tell which labels of `node` (N × K costs, N importances) stay: a mask."""
        graph, floor = self.graph, self.floor[:, node]
        if costs.shape[1] == 1:
            lines, edges = _lowest_lines(self.slopes[:, 0], floor)
            line = lines[np.searchsorted(edges, costs[:, 0])]
            return importance >= self.slopes[line, 0] * costs[:, 0] + floor[line]
        slack = SAFETY * np.abs(graph.at_most)
        least = costs + graph.least[node]
        possible: NDArray[np.bool_] = np.array(
            (least <= graph.at_most + slack).all(axis=1)
        )
        rows = np.flatnonzero(possible)
        faster = costs[rows] @ self.fresh.T < self.start[:, node]
        useful: NDArray[np.bool_] = np.array(faster.all(axis=1))
        for some in np.array_split(np.arange(len(rows)), len(rows) // 4096 + 1):
            gains = importance[rows[some], None] - costs[rows[some]] @ self.slopes.T
            useful[some] |= (gains >= floor).any(axis=1)
        possible[rows] = useful
        return possible


def _lowest_lines(
    slopes: Floats, offsets: Floats
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Find the lower envelope of the lines x·slopes + offsets, slopes ascending.

    Returns:
        The lines on the envelope from left to right, and the places where it changes from
        one to the next.
    """
    hull: list[int] = []
    edges: list[float] = []
    slope, offset = slopes.tolist(), offsets.tolist()
    for line in range(len(slope) - 1, -1, -1):
        while hull:
            last = hull[-1]
            cross = (offset[line] - offset[last]) / (slope[last] - slope[line])
            if edges and cross <= edges[-1]:
                hull.pop()
                edges.pop()
                continue
            edges.append(cross)
            break
        hull.append(line)
    return np.array(hull, dtype=np.int64), np.array(edges)


class Relaxation:
    """The Lagrangian relaxation of a graph at a grid of weights."""

    def __init__(self, graph: Graph) -> None:
        kinds = graph.at_most.size
        count = MAX_SLOPES if kinds == 1 else max(3, int(MAX_WEIGHTS ** (1 / kinds)))
        axes = [_hull_slopes(graph, kind, count) for kind in range(kinds)]
        grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
        self.graph = graph
        self.slopes = grid.reshape(-1, kinds)
        weights = np.column_stack([np.ones(len(self.slopes)), self.slopes])
        self.value, _, importance = sweep(graph, weights)
        self.range = float(np.ptp(importance))
        self.limits = np.where(np.isfinite(graph.at_most), graph.at_most, 0.0)

    def bound(self, loss: Floats, fastest: float) -> Bound:
        """Make the bound that keeps labels of `loss` (P) or less, and those that may
        become plans faster than `fastest`."""
        graph = self.graph
        scale = np.abs(graph.importance).sum() + self.slopes @ graph.most[ROOT]
        floor = self.value[ROOT] - loss - SAFETY * scale
        fresh, value = self._fastest if fastest > -np.inf else (self.slopes[:1], None)
        start = np.full((len(fresh), graph.nodes), -np.inf)
        if value is not None:
            start = fastest + (fresh @ self.limits)[:, None] + value.T
        return Bound(graph, self.slopes, floor[:, None] - self.value.T, fresh, start)

    @cached_property
    def _fastest(self) -> tuple[Floats, Floats]:
        """The weights that bound the latency within the limits, and their values."""
        steep = self.slopes[self.slopes[:, 0] > 0]
        ratios = np.unique(np.round(steep / steep[:, :1], 9), axis=0)
        chosen = np.linspace(0, len(ratios) - 1, min(FEASIBLE_WEIGHTS, len(ratios)))
        fresh = ratios[chosen.round().astype(int)]
        weights = np.column_stack([np.zeros(len(fresh)), fresh])
        return fresh, sweep(self.graph, weights)[0]

    def needed(self, latency: Floats, importance: Floats, epsilon: float) -> Floats:
        """The loss (P) up to which labels may still give a plan that no known plan
        covers; infinite if there is no known plan."""
        if not len(latency):
            return np.full(len(self.slopes), np.inf)
        # reach[m, p]: no plan faster than known plan m + 1 is more important than this.
        ends = np.append(latency[1:] / (1 + epsilon), self.graph.most[ROOT, 0])
        best = self.value[ROOT] + self.slopes @ self.limits
        loss = np.zeros(len(self.slopes))
        for some in np.array_split(np.arange(len(ends)), len(ends) // 1024 + 1):
            reach = best + ends[some, None] * self.slopes[:, 0]
            gap = reach.min(axis=1) - importance[some]
            np.maximum.at(loss, reach.argmin(axis=1), gap)
        return loss


def _hull_slopes(graph: Graph, kind: int, count: int) -> Floats:
    """Find the slopes of the upper hull of all plans' (costs[kind], importance), zero
    included; at most `count` of them, evenly chosen."""
    weights = np.zeros((2, 1 + graph.at_most.size))
    weights[0, 1 + kind] = weights[1, 0] = 1.0
    cost, value, slopes = np.zeros(0), np.zeros(0), np.zeros(1)
    while len(weights) and len(cost) <= MAX_SLOPES:
        _, costs, importance = sweep(graph, weights)
        cost, value = np.append(cost, costs[:, kind]), np.append(value, importance)
        order = np.lexsort((-value, cost))
        best = np.maximum.accumulate(value[order])
        order = order[np.append(True, best[1:] > best[:-1])]
        cost, value = cost[order], value[order]
        tried, slopes = slopes, np.append(np.diff(value) / np.diff(cost), 0.0)
        new = np.setdiff1d(slopes, tried)
        weights = np.zeros((len(new), 1 + graph.at_most.size))
        weights[:, 0], weights[:, 1 + kind] = 1.0, new
    slopes = np.unique(slopes)
    chosen = np.linspace(0, len(slopes) - 1, min(count, len(slopes)))
    return slopes[chosen.round().astype(int)]
