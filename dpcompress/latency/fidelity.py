"""How well a table's sums predict whole networks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class CheckRun:
    """A network that was predicted and then measured.

    table_ms, predicted_ms: by the table as it was measured, and as it was corrected by
    other networks; fixed part included. spread_ms: half the interquartile range.
    """

    boundaries: tuple[int, ...]
    table_ms: float
    predicted_ms: float
    measured_ms: float
    spread_ms: float

    @property
    def error(self) -> float:
        """Signed, relative to what was measured."""
        return self.predicted_ms / self.measured_ms - 1


@dataclass(frozen=True)
class Fidelity:
    """Predictions against measurements, over `runs`, none of which made the table."""

    runs: tuple[CheckRun, ...]

    @property
    def mean_error(self) -> float:
        """Mean absolute error, relative to the measured time."""
        return float(np.mean([abs(run.error) for run in self.runs]))

    @property
    def worst(self) -> CheckRun:
        return max(self.runs, key=lambda run: abs(run.error))

    @property
    def bias(self) -> float:
        """Mean signed error: above 0 the table predicts too much."""
        return float(np.mean([run.error for run in self.runs]))

    @property
    def tau(self) -> float:
        """Kendall's τ-b between predicted and measured order; nan without an order."""
        predicted = [run.predicted_ms for run in self.runs]
        return kendall(predicted, [run.measured_ms for run in self.runs])

    @property
    def _uncorrected(self) -> list[float]:
        return [run.table_ms / run.measured_ms - 1 for run in self.runs]

    @property
    def summary(self) -> dict[str, Any]:
        return {
            "networks": len(self.runs),
            "mean_error": self.mean_error,
            "worst_error": self.worst.error,
            "bias": self.bias,
            "kendall_tau": self.tau,
            "uncorrected_mean_error": float(np.mean(np.abs(self._uncorrected))),
            "uncorrected_worst_error": float(max(self._uncorrected, key=abs)),
        }

    @property
    def sentence(self) -> str:
        return (
            f"{len(self.runs)} networks: the prediction is off by "
            f"{self.mean_error:.1%} on average, at worst by {self.worst.error:+.1%} "
            f"({self.worst.measured_ms:.3f} ms measured); Kendall's tau {self.tau:.3f}"
        )

    def to_data(self) -> dict[str, Any]:
        """Plain data: the summary and all runs."""
        return {**self.summary, "runs": [asdict(run) for run in self.runs]}


def kendall(a: Sequence[float], b: Sequence[float]) -> float:
    """Kendall's τ-b: 1 if both order alike, −1 if oppositely; nan if one is constant."""
    x, y = (np.sign(np.subtract.outer(v, v)) for v in (a, b))
    ties = np.sqrt((x * x).sum() * (y * y).sum())
    return float((x * y).sum() / ties) if ties else float("nan")
