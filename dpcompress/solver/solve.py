"""Solve stage 2: the whole frontier of (latency, importance) at once."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence

import numpy as np

from dpcompress.errors import BadTable, DpcompressError, InfeasibleBudget, UsageError
from dpcompress.solver.bounds import Relaxation
from dpcompress.solver.constraints import Limit
from dpcompress.solver.frontier import Frontier
from dpcompress.solver.graph import ROOT, Graph, build_graph, node_of, position_of
from dpcompress.solver.labels import LabelSets, TooManyLabels, label_sets
from dpcompress.solver.problem import Problem
from dpcompress.tables import ImportanceTable, LatencyTable

FEW_LABELS = 20_000  # below this, bounds take longer than the labels that they save

# The loss that is allowed at first, as a share of the importance that a layer is worth,
# and how much it grows: they decide how soon a solve is done, not what it finds.
FIRST_LOSS = 0.3
FIRST_LOSS_APPROXIMATE = 0.01
GROWTH = 10.0

EPSILONS = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)  # tried in turn where labels need more memory


class ApproximateFrontier(UserWarning):
    """The exact labels needed too much memory; says which epsilon was used instead."""


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
    """Find every plan that is worth having: Kim et al. 2023, stages 1 and 2, exactly.

    Args:
        latency: T[i,j], ms. importance: I[i,j,a,b], normalised and extended.
        keep, drop: positions whose activation stays, goes.
        never_merge: layers that stay convolutions of their own.
        merge: spans whose layers end up in one convolution; see `Forced`.
        limits: other costs to keep within bounds; see `Limit`.
        pessimistic: take each latency 1.645 spreads above its value.
        epsilon: 0 is exact; see `Frontier.epsilon`.
        memory_mb: for the label sets. Where exact ones need more, the least epsilon of a
            fixed series that suffices is used, with an ApproximateFrontier warning.

    Raises:
        BadTable: the tables do not belong together, or no path of spans leads from
            position 0 to L.
        InfeasibleBudget: forced decisions and limits leave no plan.
        UsageError: contradictory or unknown decisions.

    >>> import pandas as pd
    >>> spans = pd.DataFrame({"start": [0, 1, 0], "stop": [1, 2, 2]})
    >>> times = spans.assign(latency_ms=[2.0, 2.0, 1.5])
    >>> scores = spans.assign(act_start=1, act_stop=1, importance=[0.0, 0.0, -0.5])
    >>> frontier = solve(LatencyTable(times), ImportanceTable(scores))
    >>> frontier.latency_ms.tolist(), frontier.importance.tolist()
    ([1.5, 4.0], [-0.5, 0.0])
    >>> frontier.at(3.0).spans
    (Span(start=0, stop=2),)
    """
    if not 0 <= epsilon < 1:
        raise UsageError(f"epsilon is {epsilon}.", "Choose 0 (exact) or a small share.")
    problem = Problem.build(
        latency,
        importance,
        keep=keep,
        drop=drop,
        never_merge=never_merge,
        merge=merge,
        limits=limits,
        pessimistic=pessimistic,
    )
    return solve_problem(problem, epsilon, memory_mb)


def solve_problem(
    problem: Problem, epsilon: float = 0.0, memory_mb: float = 1000.0
) -> Frontier:
    """Solve a problem whose tables, decisions and limits are checked; see `solve`.

    Raises:
        BadTable: no path of spans leads from position 0 to L.
        InfeasibleBudget: forced decisions and limits leave no plan.
    """
    graph = build_graph(problem)
    if len(graph.tail):
        frontier = Frontier(problem, *_labels(graph, epsilon, memory_mb))
        if len(frontier):
            return frontier
    else:
        require_path(problem.latency, problem.importance)
    raise InfeasibleBudget(
        f"No plan is possible at any latency with {', '.join(problem.conditions)}.",
        "Lift one of these.",
        least_ms=float("inf"),
    )


def _labels(graph: Graph, epsilon: float, memory_mb: float) -> tuple[float, LabelSets]:
    """Find the epsilon that is needed, and labels that hold the frontier to within it."""
    most = int(memory_mb * 2**20 / (32 + 8 * graph.at_most.size))
    if graph.at_most.size == 1 and not epsilon:
        try:
            return 0.0, label_sets(graph, None, min(most, FEW_LABELS))
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
                stacklevel=4,
            )
        return used, sets
    raise DpcompressError(
        f"The frontier needs more than {memory_mb:g} MB of labels.",
        "Allow more memory or set fewer limits.",
    )


def _bounded_labels(relaxation: Relaxation, epsilon: float, max_labels: int) -> LabelSets:
    """Find labels that hold the frontier to within epsilon.

    A little loss is allowed at first, then as much more as the plans found so far leave
    open, until they leave nothing open.
    """
    graph, one_cost = relaxation.graph, relaxation.graph.at_most.size == 1
    share = FIRST_LOSS_APPROXIMATE if epsilon else FIRST_LOSS
    first = share * relaxation.range / graph.depth
    loss, fastest = np.full(len(relaxation.slopes), first), -np.inf
    while True:
        sets = label_sets(graph, relaxation.bound(loss, fastest), max_labels)
        latency, importance = sets.plans.costs[:, 0], sets.plans.importance
        needed = relaxation.needed(latency, importance, epsilon)
        least = -np.inf if one_cost or not len(latency) else latency[0] / (1 + epsilon)
        if (needed <= loss).all() and fastest >= least:
            return sets
        del sets  # the next ones take as much memory
        growth = np.where(loss < relaxation.range, GROWTH * loss, np.inf)
        loss = np.maximum(loss, np.minimum(needed, growth))
        fastest = max(fastest, least)


def require_path(latency: LatencyTable, importance: ImportanceTable) -> None:
    """Raise BadTable, naming the gap, unless the rows lead from position 0 to L."""
    rows, root = importance.scores(), node_of(0, active=False)
    timed = {_step(key.start, False, key.stop, False) for key in latency.times()}
    scored = {_step(row.start, False, row.stop, False) for row in rows}
    joined = {_step(row.start, row.act_start, row.stop, row.act_stop) for row in rows}
    for table, steps, first, words in (
        (latency, timed, root, ""),
        (importance, scored, root, ""),
        (importance, joined, ROOT, " with flags that fit the row before"),
    ):
        end = position_of(max(_reached(steps, first)))
        if end < latency.depth:
            raise BadTable(
                f"no row{words} leads on from position {end}: the single-layer span "
                f"({end}, {end + 1}) is missing.",
                "Add the missing row.",
                path=table.source,
                column="stop",
            )
    if not len(build_graph(Problem.build(latency, importance)).tail):
        raise BadTable(
            f"its spans and those of {latency.source} leave no common path from position "
            f"0 to {latency.depth}.",
            "Measure and score the same spans, all single layers among them.",
            path=importance.source,
        )


def _step(start: int, act_start: bool, stop: int, act_stop: bool) -> tuple[int, int]:
    return node_of(start, act_start), node_of(stop, act_stop)


def _reached(steps: Iterable[tuple[int, int]], first: int) -> set[int]:
    """Find the nodes that `steps` (tail, head) lead to from `first`, itself included."""
    found = {first}
    for tail, head in sorted(steps, key=lambda step: step[1]):
        if tail in found:
            found.add(head)
    return found
