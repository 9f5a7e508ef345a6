"""Why a plan is as it is: each decision against the best plan that decides otherwise."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from dpcompress.blueprint import Blueprint, Illegal, Plan, Span, examine
from dpcompress.errors import BadTable, InfeasibleBudget, UsageError
from dpcompress.progress import Progress, silent
from dpcompress.solver.constraints import Limit
from dpcompress.solver.solve import check_together, solve
from dpcompress.tables import ImportanceTable, LatencyTable


@dataclass(frozen=True)
class Decision:
    """One activation or layer of a plan.

    kept: the activation stands; the layer stays a convolution of its own.
    importance: what the best opposite plan within the same budget loses; None where no
        opposite plan is possible.
    latency_ms: how much longer that plan takes (negative: it is faster).
    why: reasons of the illegal merges around, where the blueprint is known.
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
    latency: LatencyTable,
    importance: ImportanceTable,
    blueprint: Blueprint | None = None,
    *,
    keep: Iterable[int] = (),
    drop: Iterable[int] = (),
    never_merge: Iterable[int] = (),
    merge: Iterable[tuple[int, int]] = (),
    limits: Sequence[Limit] = (),
    pessimistic: bool = False,
    progress: Progress = silent,
) -> list[Decision]:
    """Every activation and layer of `plan`, which `solve` made with the same arguments.

    Each takes one more solve, with the opposite decision forced. Positions where neither
    the original nor the plan has an activation are decisions too, if the importance
    table offers one there.

    Raises:
        UsageError: the plan says neither its budget nor its predicted latency.
        BadTable: the tables or the blueprint belong to something else.
    """
    check_together(latency, importance)
    budget = plan.predicted_ms if plan.budget_ms is None else plan.budget_ms
    if budget is None or plan.predicted_ms is None or plan.importance is None:
        raise UsageError(
            "A plan without latency and importance cannot be explained.",
            "Take one that solve has written.",
        )
    if blueprint is not None and latency.blueprint not in ("", blueprint.digest):
        raise BadTable(
            f"its blueprint is {latency.blueprint}, the model's is {blueprint.digest}.",
            "Take the model, input and limits that the table was measured for.",
            path=latency.source,
        )
    frame = importance.frame
    offered = set(frame["stop"][frame["act_stop"] == 1].tolist())
    alone = {stop for start, stop in plan.spans if stop - start == 1}
    kept_activations, lonely = tuple(keep), tuple(never_merge)
    dropped, merged = tuple(drop), tuple(merge)
    activations, layers = sorted(offered), range(1, latency.depth + 1)
    total, found = len(activations) + len(layers), list[Decision]()

    def opposite(
        *,
        keep: tuple[int, ...] = (),
        drop: tuple[int, ...] = (),
        never_merge: tuple[int, ...] = (),
        merge: tuple[tuple[int, int], ...] = (),
    ) -> tuple[float, float] | tuple[None, None]:
        try:
            other = solve(
                latency,
                importance,
                keep=kept_activations + keep,
                drop=dropped + drop,
                never_merge=lonely + never_merge,
                merge=merged + merge,
                limits=limits,
                pessimistic=pessimistic,
            ).at(budget)
        except (InfeasibleBudget, UsageError):
            return None, None
        assert plan.importance is not None and other.importance is not None
        assert plan.predicted_ms is not None and other.predicted_ms is not None
        return plan.importance - other.importance, other.predicted_ms - plan.predicted_ms

    for p in activations:
        kept = p in plan.activations
        loss, slower = opposite(drop=(p,)) if kept else opposite(keep=(p,))
        why = _illegal(blueprint, [Span(p - 1, p + 1)] if kept else [])
        found.append(Decision("activation", p, kept, loss, slower, why))
        progress(len(found), total)
    for n in layers:
        kept = n in alone
        loss, slower = (
            opposite(merge=((n - 1, n),)) if kept else opposite(never_merge=(n,))
        )
        spans = [Span(n - 2, n), Span(n - 1, n + 1)] if kept else []
        found.append(Decision("layer", n, kept, loss, slower, _illegal(blueprint, spans)))
        progress(len(found), total)
    return found


def _illegal(blueprint: Blueprint | None, spans: list[Span]) -> tuple[str, ...]:
    """Why these spans cannot merge, those of them that exist and cannot."""
    if blueprint is None:
        return ()
    inside = [s for s in spans if s.start >= 0 and s.stop <= blueprint.depth]
    verdicts = [examine(blueprint, span) for span in inside]
    reasons = []
    for span, verdict in zip(inside, verdicts, strict=True):
        why = verdict.why if isinstance(verdict, Illegal) else verdict.too_large
        if why:
            reasons.append(f"({span.start}, {span.stop}] cannot merge: {why}")
    return tuple(reasons)
