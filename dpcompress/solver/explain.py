"""Explain a plan: each decision against the best plan that decides otherwise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from dpcompress.blueprint import Blueprint, Illegal, Plan, Span, examine
from dpcompress.errors import BadTable, InfeasibleBudget, UsageError
from dpcompress.progress import Progress, silent
from dpcompress.solver.problem import Problem
from dpcompress.solver.solve import solve_problem


@dataclass(frozen=True)
class Decision:
    """The decision of a plan about one activation or layer.

    kept: whether the activation stands, or the layer stays a convolution of its own.
    importance: what the best plan of the opposite decision loses within the same budget;
        None where there is no such plan.
    latency_ms: how much longer that plan takes (negative: it is faster).
    why: the reasons for which merges around it are illegal, if the blueprint is known.
    """

    kind: Literal["activation", "layer"]
    number: int
    kept: bool
    importance: float | None
    latency_ms: float | None
    why: tuple[str, ...] = ()

    def __str__(self) -> str:
        words = {
            ("activation", True): "stays",
            ("activation", False): "goes",
            ("layer", True): "stays alone",
            ("layer", False): "merges",
        }
        text = f"{self.kind} {self.number} {words[self.kind, self.kept]}: "
        if self.importance is None or self.latency_ms is None:
            text += "no other plan fits the budget"
        else:
            text += (
                f"otherwise the importance is {self.importance:.6g} lower "
                f"and the latency {self.latency_ms:+.6g} ms"
            )
        return "; ".join([text, *self.why])


def explain(
    plan: Plan,
    problem: Problem,
    blueprint: Blueprint | None = None,
    *,
    progress: Progress = silent,
) -> list[Decision]:
    """Compare each decision of `plan`, about every activation and layer, with the best
    plan that decides otherwise.

    Each takes one more solve, with the opposite decision forced. Positions where neither
    the original nor the plan has an activation are decisions too, if the importance
    table offers one there.

    Args:
        problem: what was solved for the plan: `Frontier.problem`.
        blueprint: adds the reasons for which spans cannot merge.

    Raises:
        UsageError: the plan says neither its budget nor its predicted latency.
        BadTable: the blueprint is not that of the tables.
    """
    latency = problem.latency
    if blueprint is not None and latency.blueprint not in ("", blueprint.digest):
        raise BadTable(
            f"its blueprint is {latency.blueprint}, the model's is {blueprint.digest}.",
            "Take the model, input and limits that the table was measured for.",
            path=latency.source,
        )
    offered = {key.stop for key in problem.importance.scores() if key.act_stop}
    alone = {span.stop for span in plan.spans if span.length == 1}
    activations, layers = sorted(offered), range(1, latency.depth + 1)
    total, found = len(activations) + len(layers), list[Decision]()
    for p in activations:
        kept = p in plan.activations
        opposite = {"drop": (p,)} if kept else {"keep": (p,)}
        why = _illegal(blueprint, [Span(p - 1, p + 1)] if kept else [])
        loss, slower = _compared(plan, problem, **opposite)
        found.append(Decision("activation", p, kept, loss, slower, why))
        progress(len(found), total)
    for n in layers:
        kept = n in alone
        merging = {"merge": ((n - 1, n),)} if kept else {"never_merge": (n,)}
        why = _illegal(blueprint, [Span(n - 2, n), Span(n - 1, n + 1)] if kept else [])
        loss, slower = _compared(plan, problem, **merging)
        found.append(Decision("layer", n, kept, loss, slower, why))
        progress(len(found), total)
    return found


def _compared(
    plan: Plan, problem: Problem, **forced: Any
) -> tuple[float, float] | tuple[None, None]:
    """Solve with `forced` within the budget of `plan`: the importance that is lost, and
    how many milliseconds longer it takes; None if there is no such plan."""
    budget_ms = plan.predicted_ms if plan.budget_ms is None else plan.budget_ms
    if budget_ms is None or plan.predicted_ms is None or plan.importance is None:
        raise UsageError(
            "A plan without latency and importance cannot be explained.",
            "Take one that solve has written.",
        )
    try:
        other = solve_problem(problem.forcing(**forced)).at(budget_ms)
    except (InfeasibleBudget, UsageError):
        return None, None
    assert other.importance is not None and other.predicted_ms is not None
    return plan.importance - other.importance, other.predicted_ms - plan.predicted_ms


def _illegal(blueprint: Blueprint | None, spans: list[Span]) -> tuple[str, ...]:
    """Say why those of `spans` that the network has cannot merge."""
    if blueprint is None:
        return ()
    reasons = []
    for span in spans:
        if span.start < 0 or span.stop > blueprint.depth:
            continue
        verdict = examine(blueprint, span)
        why = verdict.why if isinstance(verdict, Illegal) else verdict.too_large
        if why:
            reasons.append(f"({span.start}, {span.stop}] cannot merge: {why}")
    return tuple(reasons)
