"""What is timed, and what is found."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Callable, Sequence, Tuple

from dpcompress.runner.engine import Session
from dpcompress.runner.statistics import half_iqr, median_interval, quantile


@dataclass(frozen=True)
class Subject:
    """A graph to time, and how a session of it is built.

    key: its name in logs and results.
    load: builds a session of it.
    bytes: estimated memory of a session.
    kind: ops of one kind, such as "depthwise", slow down together, at other moments than
        the rest; "" for the rest.
    """

    key: str
    load: Callable[[], Session]
    bytes: int = 0
    kind: str = ""


@dataclass(frozen=True)
class Measurement:
    """The statistics of samples, in milliseconds per inference.

    spread_ms: half the interquartile range of the samples: how noisy it was.
    error_ms: half the 95 % confidence interval of the median: how well it is known.
    samples: number of samples that count.
    disturbed: number of samples that were thrown away.
    samples_ms: the samples that count; empty for a measurement that was read from a
        file. After `compare`, samples of equal index are of the same round.
    """

    median_ms: float
    p90_ms: float
    spread_ms: float
    error_ms: float
    samples: int
    disturbed: int = 0
    samples_ms: Tuple[float, ...] = field(default=(), repr=False, compare=False)

    @classmethod
    def of(cls, samples_ms: Sequence[float], disturbed: int = 0) -> Measurement:
        """Compute the statistics of at least one sample."""
        low, high = median_interval(samples_ms)
        return cls(
            median_ms=quantile(samples_ms, 0.5),
            p90_ms=quantile(samples_ms, 0.9),
            spread_ms=half_iqr(samples_ms),
            error_ms=(high - low) / 2,
            samples=len(samples_ms),
            disturbed=disturbed,
            samples_ms=tuple(samples_ms),
        )
