"""What `solve` says: the frontier, the plan, and why it is so."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dpcompress.cli.output import console, print_table

if TYPE_CHECKING:
    from dpcompress.blueprint import Plan
    from dpcompress.solver import Decision, Frontier


def solution_facts(
    found: Frontier, original_ms: float | None, plan: Plan | None, why: list[Decision]
) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "plans": len(found),
        "least_ms": float(found.latency_ms[0]),
        "most_ms": float(found.latency_ms[-1]),
        "original_ms": original_ms,
        "epsilon": found.epsilon,
        "limits": found.limits,
        "plan": plan and plan.model_dump(mode="json"),
    }
    if why:
        facts["decisions"] = [vars(decision) for decision in why]
    return facts


def print_solution(
    found: Frontier, original_ms: float | None, plan: Plan | None, why: list[Decision]
) -> None:
    columns = ("predicted ms", "of original", "importance", "convs", "activations")
    last = len(found) - 1
    rows = sorted({round(last * step / 9) for step in range(10)})
    print_table(
        columns,
        [_row(found[row], original_ms) for row in rows],
        title=f"{len(rows)} of {len(found)} best plans",
    )
    if plan is not None:
        print_table(columns, [_row(plan, original_ms)], title="The plan")
        merged = ", ".join(f"{start + 1}-{stop}" for start, stop in plan.merged)
        print(f"merged layers: {merged or 'none'}")
        print(f"activations:   {', '.join(map(str, plan.activations)) or 'none'}")
    for decision in why:
        print(decision)
    if found.epsilon:
        console.print(
            f"approximate: each plan is at most {found.epsilon:.3%} slower than the "
            "fastest one that is as important"
        )


def _row(plan: Plan, original_ms: float | None) -> list[object]:
    share = ""
    if original_ms and plan.predicted_ms:
        share = f"{plan.predicted_ms / original_ms:.0%}"
    return [
        plan.predicted_ms,
        share,
        plan.importance,
        len(plan.spans),
        len(plan.activations),
    ]
