"""Bounds that tell which labels cannot lead to the frontier.

For weights (w, λ) the best completion of a node, max of w·importance − λ·costs, is a
shortest path. Summed over a grid of weights these give, for every node, an upper bound on
what a label can become, and many good plans on the way. A label whose upper bound lies
below the staircase of plans already known is dropped: the frontier stays exact
(Lagrangian bounding, as for the constrained shortest path: Handler and Zang 1980).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dpcompress.solver.graph import Floats, Graph, Ints

SAFETY = 1e-9
"""Relative slack for rounding: bounds must never drop a label that is worth keeping."""
MAX_SLOPES = 512
MAX_WEIGHTS = 256
MAX_SAMPLES = 1_000_000


@dataclass(frozen=True)
class Sweep:
    """Best paths between each node and one end, for each of P weights.

    value: nodes × P; costs: nodes × P × K and importance: nodes × P of those paths.
    """

    value: Floats
    costs: Floats
    importance: Floats


def sweep(graph: Graph, weights: Floats, forward: bool = False) -> Sweep:
    """`weights` is P × (1 + K): of the importance, then of each cost."""
    count, kinds = len(weights), graph.at_most.size
    value = np.full((graph.nodes, count), -np.inf)
    costs = np.zeros((graph.nodes, count, kinds))
    importance = np.zeros((graph.nodes, count))
    value[[Graph.ROOT] if forward else [-2, -1]] = 0.0
    order = range(graph.nodes) if forward else range(graph.nodes - 1, -1, -1)
    lanes = np.arange(count)
    for node in order:
        edges = graph.into[node] if forward else graph.out_of[node]
        if not edges.size:
            continue
        other = graph.tail[edges] if forward else graph.head[edges]
        gains = graph.importance[edges, None] * weights[:, 0]
        values = gains - graph.costs[edges] @ weights[:, 1:].T + value[other]
        best = values.argmax(axis=0)
        value[node] = values[best, lanes]
        costs[node] = graph.costs[edges[best]] + costs[other[best], lanes]
        importance[node] = graph.importance[edges[best]] + importance[other[best], lanes]
    return Sweep(value, costs, importance)


@dataclass(frozen=True)
class Bound:
    """What a label needs to be worth keeping.

    A label (costs c, importance v) at node u stays if for some p
    v − slopes[p]·c ≥ floor[p, u], or if its latency can still come below `fresh`.
    """

    graph: Graph
    slopes: Floats
    floor: Floats
    fresh: float

    def keeps(self, node: int, costs: Floats, importance: Floats) -> np.ndarray:
        """Mask of the labels of `node` that may lead to the frontier.

        Args:
            costs: N × K. importance: N.
        """
        graph = self.graph
        slack = SAFETY * (1 + np.abs(graph.at_most))
        possible = (costs + graph.least[node] <= graph.at_most + slack).all(axis=1)
        if not len(self.slopes):
            return possible
        floor = self.floor[:, node]
        if costs.shape[1] == 1 and len(costs) > 256:
            return possible & (importance >= self._needed(floor, costs[:, 0]))
        useful = costs[:, 0] + graph.least[node, 0] < self.fresh
        for part in np.array_split(np.arange(len(costs)), len(costs) // 4096 + 1):
            gains = importance[part, None] - costs[part] @ self.slopes.T
            useful[part] |= (gains >= floor).any(axis=1)
        return possible & useful

    def _needed(self, floor: Floats, latency: Floats) -> Floats:
        """Least importance for each latency. It is concave (a minimum of lines), so that
        straight pieces between samples stay below it."""
        samples = np.linspace(latency.min(), latency.max(), 129)
        lines = samples[:, None] * self.slopes[:, 0] + floor
        return np.interp(latency, samples, lines.min(axis=1))


def bound(graph: Graph, epsilon: float = 0.0) -> Bound:
    """The bound for the frontier over the latency within the graph's limits.

    Args:
        epsilon: plans known already stand for plans up to 1 + epsilon times faster.
    """
    weights = _weights(graph)
    back = sweep(graph, weights)
    slopes, best = weights[:, 1:], back.value[Graph.ROOT]
    plans = _root_plans(back) if epsilon else _plans_by_edge(graph, weights, back)
    costs, importance, lane = plans
    inside = (costs[:, 1:] <= graph.at_most[1:]).all(axis=1)
    latency, importance, lane = _staircase(
        costs[inside, 0], importance[inside], lane[inside]
    )
    if not latency.size:
        return Bound(graph, slopes[:0], slopes[:0, :1], np.inf)
    # reach[m, p]: no plan faster than the known plan m + 1 is better than this.
    ends = np.append(latency[1:] / (1 + epsilon), graph.most[Graph.ROOT, 0])
    limits = np.where(np.isfinite(graph.at_most[1:]), graph.at_most[1:], 0.0)
    reach = best + slopes[:, 1:] @ limits + ends[:, None] * slopes[:, 0]
    tightest = reach.argmin(axis=1)
    loss = np.full(len(weights), -np.inf)
    np.maximum.at(loss, tightest, reach.min(axis=1) - importance)
    if epsilon:
        loss[lane] = np.maximum(loss[lane], 0.0)
    used = np.isfinite(loss)
    scale = np.abs(graph.importance).sum() + slopes @ graph.most[Graph.ROOT]
    floor = best - loss - SAFETY * scale
    return Bound(
        graph,
        slopes[used],
        floor[used, None] - back.value.T[used],
        latency[0] / (1 + epsilon),
    )


def _weights(graph: Graph) -> Floats:
    """Weights at which bounds are taken: every slope of the hull of (latency, importance)
    plans, or a grid of slopes where there are several costs."""
    kinds = graph.at_most.size
    count = MAX_SLOPES if kinds == 1 else max(3, int(MAX_WEIGHTS ** (1 / kinds)))
    axes = [_hull_slopes(graph, kind, count) for kind in range(kinds)]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, kinds)
    return np.column_stack([np.ones(len(grid)), grid])


def _hull_slopes(graph: Graph, kind: int, count: int) -> Floats:
    """Slopes of the upper hull of all plans' (costs[kind], importance), zero included;
    at most `count`, evenly chosen."""
    weights = np.zeros((2, 1 + graph.at_most.size))
    weights[0, 1 + kind] = weights[1, 0] = 1.0
    cost, value = np.zeros(0), np.zeros(0)
    slopes = np.zeros(1)
    while len(weights):
        costs, importance, _ = _root_plans(sweep(graph, weights))
        points = len(cost)
        cost, value, _ = _staircase(
            np.append(cost, costs[:, kind]), np.append(value, importance)
        )
        if len(cost) == points or len(cost) > 2 * MAX_SLOPES:
            break
        tried, slopes = slopes, np.append(np.diff(value) / np.diff(cost), 0.0)
        fresh = np.setdiff1d(slopes, tried)
        weights = np.zeros((len(fresh), 1 + graph.at_most.size))
        weights[:, 0], weights[:, 1 + kind] = 1.0, fresh
    slopes = np.unique(slopes)
    chosen = np.linspace(0, len(slopes) - 1, min(count, len(slopes)))
    return slopes[chosen.round().astype(int)]


Plans = tuple[Floats, Floats, Ints]
"""N × K costs, N importances, N: the weight that the plan is best for."""


def _root_plans(back: Sweep) -> Plans:
    root = Graph.ROOT
    return back.costs[root], back.importance[root], np.arange(back.value.shape[1])


def _plans_by_edge(graph: Graph, weights: Floats, back: Sweep) -> Plans:
    """The best plan through every edge, for a sample of the weights."""
    samples = min(len(weights), max(1, MAX_SAMPLES // len(graph.tail)))
    lanes = np.linspace(0, len(weights) - 1, samples).round().astype(int)
    front = sweep(graph, weights[lanes], forward=True)
    costs = front.costs[graph.tail] + back.costs[graph.head][:, lanes]
    costs += graph.costs[:, None, :]
    importance = front.importance[graph.tail] + back.importance[graph.head][:, lanes]
    importance += graph.importance[:, None]
    at_root = _root_plans(back)
    return (
        np.concatenate([costs.reshape(-1, graph.at_most.size), at_root[0]]),
        np.concatenate([importance.ravel(), at_root[1]]),
        np.concatenate([np.tile(lanes, len(graph.tail)), at_root[2]]),
    )


def _staircase(
    cost: Floats, value: Floats, lane: Ints | None = None
) -> tuple[Floats, Floats, Ints]:
    """The points that no cheaper one equals in value, by cost."""
    order = np.lexsort((-value, cost))
    best = np.maximum.accumulate(value[order])
    order = order[np.append(True, best[1:] > best[:-1])] if len(order) else order
    lane = np.arange(len(cost)) if lane is None else lane
    return cost[order], value[order], lane[order]
