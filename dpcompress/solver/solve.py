"""Stage 2: the whole frontier of (latency, importance) in one solve."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence

import numpy as np

from dpcompress.errors import BadTable, DpcompressError, InfeasibleBudget, UsageError
from dpcompress.solver.bounds import Relaxation
from dpcompress.solver.constraints import Forced, Limit
from dpcompress.solver.frontier import Frontier, collect, last_labels
from dpcompress.solver.graph import Graph, build
from dpcompress.solver.labels import Labels, TooManyLabels, label_sets
from dpcompress.solver.stage1 import SpanCosts, span_costs
from dpcompress.tables import ImportanceTable, LatencyTable

SPREADS = 1.645
"""One-sided 95 % of a normal distribution."""
FEW_LABELS = 20_000
"""Below this, bounds take longer than the labels that they save."""
FIRST_LOSS, FIRST_LOSS_APPROXIMATE, GROWTH = 0.3, 0.01, 10.0
"""Loss allowed at first, as a share of the importance that a layer is worth, and by how
much it grows. They decide how soon a solve is done, not what it finds."""
EPSILONS = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)


class ApproximateFrontier(UserWarning):
    """The exact labels did not fit in memory; says which epsilon was used instead."""


def solve(
    latency: LatencyTable,
    importance: ImportanceTable,
    *,
    keep: Iterable[int] = (),
    drop: Iterable[int] = (),
    never_merge: Iterable[int] = (),
    merge: Iterable[tuple[int, int]] = (),
    limits: Sequence[Limit] = (),
    pessimistic: bool = False,
    epsilon: float = 0.0,
    memory_mb: float = 1000.0,
) -> Frontier:
    """Every plan that is worth having: Kim et al. 2023, stages 1 and 2, exactly.

    Args:
        latency: T[i,j], ms. importance: I[i,j,a,b], normalised and extended.
        keep, drop: positions whose activation stays, goes.
        never_merge: layers that stay convolutions of their own.
        merge: spans whose layers end up in one convolution; see `Forced`.
        limits: other costs to keep within bounds; see `Limit`.
        pessimistic: take each latency 1.645 spreads above its value.
        epsilon: 0 is exact; see `Frontier.epsilon`.
        memory_mb: for the label sets. Where exact ones need more, the least epsilon of a
            fixed series that fits is used, with an ApproximateFrontier warning.

    Raises:
        BadTable: the tables do not belong together, or leave no way from 0 to L.
        InfeasibleBudget: forced decisions and limits leave no plan.
        UsageError: contradictory or unknown decisions.
    """
    if not 0 <= epsilon < 1:
        raise UsageError(f"epsilon is {epsilon}.", "Choose 0 (exact) or a small share.")
    check_together(latency, importance)
    if pessimistic:
        latency = upper_bound(latency)
    forced = Forced.build(latency.depth, keep, drop, never_merge, merge)
    spans = span_costs(latency)
    graph = build(spans, importance, limits, forced)
    names = tuple([limit.describe() for limit in limits] + forced.describe())
    if not len(graph.tail):
        check_way_through(spans, latency, importance)
        raise _nothing_left(names)
    sets, used = _labels(graph, epsilon, memory_mb)
    frontier = collect(graph, sets, latency, importance, used, names)
    if not len(frontier):
        raise _nothing_left(names)
    return frontier


def _nothing_left(names: tuple[str, ...]) -> InfeasibleBudget:
    return InfeasibleBudget(
        f"No plan is possible at any latency with {', '.join(names)}.",
        "Lift one of these.",
        least_ms=float("inf"),
    )


def _labels(graph: Graph, epsilon: float, memory_mb: float) -> tuple[list[Labels], float]:
    """The label sets, and the epsilon that they hold for."""
    most = int(memory_mb * 2**20 / (32 + 8 * graph.at_most.size))
    if graph.at_most.size == 1 and not epsilon:
        try:
            return label_sets(graph, None, min(most, FEW_LABELS)), 0.0
        except TooManyLabels:
            pass
    relaxation = Relaxation(graph)
    for used in (epsilon, *(e for e in EPSILONS if e > epsilon)):
        try:
            sets = _bounded_labels(relaxation, used, most)
        except TooManyLabels:
            continue
        if used > epsilon:
            warnings.warn(
                f"The labels of an exact frontier need more than {memory_mb:g} MB; this "
                f"one holds to within {used:.3%} of latency.",
                ApproximateFrontier,
                stacklevel=3,
            )
        return sets, used
    raise DpcompressError(
        f"The frontier needs more than {memory_mb:g} MB of labels.",
        "Allow more memory or set fewer limits.",
    )


def _bounded_labels(
    relaxation: Relaxation, epsilon: float, max_labels: int
) -> list[Labels]:
    """Label sets that hold the frontier to within epsilon: allow a little loss, and as
    much more as the plans found so far leave open, until they leave nothing open."""
    graph, one_cost = relaxation.graph, relaxation.graph.at_most.size == 1
    share = FIRST_LOSS_APPROXIMATE if epsilon else FIRST_LOSS
    first = share * relaxation.range / graph.depth
    loss, fastest = np.full(len(relaxation.slopes), first), -np.inf
    while True:
        sets = label_sets(graph, relaxation.bound(loss, fastest), max_labels)
        plans = last_labels(graph, sets)
        latency, importance = plans.costs[:, 0], plans.importance
        needed = relaxation.needed(latency, importance, epsilon)
        least = -np.inf if one_cost or not len(latency) else latency[0] / (1 + epsilon)
        if (needed <= loss).all() and fastest >= least:
            return sets
        del sets  # the next ones take as much memory
        growth = np.where(loss < relaxation.range, GROWTH * loss, np.inf)
        loss = np.maximum(loss, np.minimum(needed, growth))
        fastest = max(fastest, least)


def upper_bound(latency: LatencyTable) -> LatencyTable:
    """Each latency raised by 1.645 of its spreads: exceeded with 5 % probability if they
    are standard deviations. The number of samples does not lessen them, since the drift
    of a machine does not average out."""
    raised = latency.frame["latency_ms"] + SPREADS * latency.frame["spread_ms"]
    return LatencyTable(
        latency.frame.assign(latency_ms=raised), latency.header, latency.source
    )


def check_together(latency: LatencyTable, importance: ImportanceTable) -> None:
    """Refuse tables that are not of one network."""
    for what, left, right in (
        ("position count", latency.depth, importance.depth),
        ("blueprint", latency.blueprint, importance.blueprint),
        ("input", latency.input, importance.input),
    ):
        if left and right and left != right:
            raise BadTable(
                f"its {what} is {right}, that of {latency.source} is {left}.",
                "Take both tables from the same model, input and limits.",
                path=importance.source,
            )


def check_way_through(
    spans: SpanCosts, latency: LatencyTable, importance: ImportanceTable
) -> None:
    """Name the gap in the tables if there is no way from 0 to L even without limits."""
    ways = {(i, int(a), j, int(b)) for i, j, _, a, b in importance.scores()}
    for table, steps in (
        (latency, {(i, 0, j, 0) for i, j, _, _ in spans}),
        (importance, {(i, 0, j, 0) for i, _, j, _ in ways}),
        (importance, ways),
    ):
        first = (0, 1) if steps is ways else (0, 0)
        reached = {first}
        for i, a, j, b in sorted(steps, key=lambda step: step[2]):
            if (i, a) in reached:
                reached.add((j, b))
        end = max(position for position, _ in reached)
        if end < latency.depth:
            with_flags = " with flags that fit the row before" if steps is ways else ""
            raise BadTable(
                f"no row{with_flags} leads on from position {end}: the single-layer span "
                f"({end}, {end + 1}) is missing.",
                "Add the missing row.",
                path=table.source,
                column="stop",
            )
    if not len(build(spans, importance).tail):
        raise BadTable(
            f"its spans and those of {latency.source} leave no common way from position "
            f"0 to {latency.depth}.",
            "Measure and score the same spans, all single layers among them.",
            path=importance.source,
        )
