"""From a predicted budget to a measured one: build, measure, correct, choose again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from dpcompress.blueprint import Plan
from dpcompress.blueprint.data import Frozen
from dpcompress.errors import InfeasibleBudget, UsageError
from dpcompress.progress import Progress, silent
from dpcompress.solver import Frontier

MAX_TRIALS = 12


@dataclass(frozen=True)
class Trial:
    """A plan that was built and measured.

    row: its place on the frontier.
    predicted_ms: by the latency table.
    corrected_ms: by the latency table and the trials before this one.
    measured_ms: as `close_loop`'s `measure` returned it.
    """

    row: int
    predicted_ms: float
    corrected_ms: float
    measured_ms: float


class Loop(Frozen):
    """The course of a closed loop.

    measured_ms: the time of the chosen plan, at most budget_ms.
    below: how far it is below the budget, as a share of the budget.
    settled: whether every plan of higher importance exceeds the budget, measured or by
        the corrected prediction.
    why: in words, what stands between the plan and the budget.
    """

    budget_ms: float
    measured_ms: float
    below: float
    settled: bool
    why: str
    trials: tuple[Trial, ...]

    @property
    def chosen(self) -> Trial:
        """The trial of the chosen plan."""
        within = [trial for trial in self.trials if trial.measured_ms <= self.budget_ms]
        return max(within, key=lambda trial: trial.row)

    @property
    def sentence(self) -> str:
        count = len(self.trials)
        return (
            f"{count} planned network{'s' * (count > 1)} measured: the chosen one takes "
            f"{self.measured_ms:.4g} ms, {self.below:.1%} below the budget of "
            f"{self.budget_ms:.4g} ms; {self.why}."
        )


def close_loop(
    frontier: Frontier,
    budget_ms: float,
    measure: Callable[[Plan], float],
    *,
    max_trials: int = MAX_TRIALS,
    progress: Progress = silent,
) -> tuple[Plan, Loop]:
    """Find the most important plan that is *measured* to be within `budget_ms`.

    The errors of the measured plans are interpolated linearly in predicted latency, and
    taken as constant outside. Every turn measures the most important plan that is within
    the budget by the corrected prediction, until that plan is measured already.

    Args:
        measure: builds and times the network of a plan; returns its median
            milliseconds, end to end.
        max_trials: networks to build at most; if none was within the budget, the last
            one is the fastest plan.

    Returns:
        The plan, with its budget and its measured time, and the course of the loop.

    Raises:
        InfeasibleBudget: the fastest plan itself is measured to take longer.
        UsageError: `budget_ms` is not positive, or `max_trials` is less than 1.
    """
    if not budget_ms > 0 or max_trials < 1:  # so is NaN refused, too
        raise UsageError(
            f"A budget of {budget_ms:g} ms cannot be met in {max_trials} trials.",
            "Give a positive budget and at least one trial.",
        )
    found: dict[int, Trial] = {}
    corrected = frontier.latency_ms
    while True:
        within = np.flatnonzero(corrected <= budget_ms)
        row = int(within[-1]) if len(within) else 0
        if row in found or len(found) == max_trials:
            break
        met = any(trial.measured_ms <= budget_ms for trial in found.values())
        if found and not met and len(found) == max_trials - 1:
            row = 0  # the last trial: if any plan is within the budget, this one is
            if row in found:
                break
        plan, predicted_ms = frontier[row], float(frontier.latency_ms[row])
        measured_ms = float(measure(plan))
        found[row] = Trial(row, predicted_ms, float(corrected[row]), measured_ms)
        corrected = _corrected(frontier, found)
        progress(len(found), max_trials, f"{measured_ms:.4g} ms for {budget_ms:.4g}")
    progress(len(found), len(found))
    return _outcome(frontier, budget_ms, found, corrected, settled=row in found)


def _corrected(frontier: Frontier, found: dict[int, Trial]) -> np.ndarray:
    """Add the trials' residuals, interpolated, to the frontier's predictions; a measured
    plan gets its measured time."""
    rows = sorted(found)
    residuals = [found[row].measured_ms - found[row].predicted_ms for row in rows]
    predicted = frontier.latency_ms
    corrected: np.ndarray = predicted + np.interp(predicted, predicted[rows], residuals)
    corrected[rows] = [found[row].measured_ms for row in rows]
    return corrected


def _outcome(
    frontier: Frontier,
    budget_ms: float,
    found: dict[int, Trial],
    corrected: np.ndarray,
    settled: bool,
) -> tuple[Plan, Loop]:
    """The plan and the Loop when no more trials are made."""
    good = [row for row, trial in found.items() if trial.measured_ms <= budget_ms]
    if not good:
        least = min(trial.measured_ms for trial in found.values())
        raise InfeasibleBudget(
            f"No plan was measured to take at most {budget_ms:.6g} ms: the fastest of "
            f"{len(found)} takes {least:.6g} ms.",
            f"Ask for {least:.6g} ms or more.",
            least_ms=least,
        )
    row = max(good)
    above = corrected[row + 1 :]
    if not len(above):
        why = "there is no plan of higher importance"
    elif not settled:
        why = f"{len(found)} networks were measured, no more were allowed"
    else:
        why = (
            "the plans of higher importance take "
            f"{float(above.min()):.6g} ms or more, after correction"
        )
    measured_ms = found[row].measured_ms
    loop = Loop(
        budget_ms=budget_ms,
        measured_ms=measured_ms,
        below=1 - measured_ms / budget_ms,
        settled=settled,
        why=why,
        trials=tuple(found.values()),
    )
    plan = frontier[row].model_copy(
        update={"budget_ms": budget_ms, "measured_ms": measured_ms}
    )
    return plan, loop
