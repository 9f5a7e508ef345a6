"""Statistics of repeated timings."""

from __future__ import annotations

from functools import lru_cache
from math import comb
from typing import TYPE_CHECKING, Sequence, Tuple

if TYPE_CHECKING:
    import numpy as np

# With at least this many subjects, a slowdown that they share is the machine's.
LEAST_SUBJECTS = 5


def quantile(values: Sequence[float], q: float) -> float:
    """The `q` quantile, linear between order statistics."""
    import numpy as np

    return float(np.quantile(np.asarray(values, dtype=float), q))


def half_iqr(values: Sequence[float]) -> float:
    """Compute half the distance from the lower to the upper quartile."""
    import numpy as np

    low, high = np.quantile(np.asarray(values, dtype=float), (0.25, 0.75))
    return float(high - low) / 2


@lru_cache(maxsize=None)
def _ranks(n: int) -> Tuple[int, int]:
    """Choose the ranks, from 0, of the two ordered samples that hold the median between
    them with 95 % confidence: the number of samples below the median is
    Binomial(n, 1/2), whatever their distribution."""
    below, low = 0, 0
    while low < (n - 1) // 2 and 40 * (below + comb(n, low)) <= 2**n:
        below += comb(n, low)
        low += 1
    low = max(low - 1, 0)
    return low, n - 1 - low


def median_interval(values: Sequence[float]) -> Tuple[float, float]:
    """A 95 % confidence interval of the median, whatever the distribution.

    With fewer than 6 values it is their whole range, and the confidence is less.
    """
    low, high = _ranks(len(values))
    ordered = sorted(values)
    return ordered[low], ordered[high]


def slowdowns(rounds: np.ndarray) -> np.ndarray:
    """Estimate how slow the machine was in each round, relative to the median round.

    Args:
        rounds: milliseconds, of shape (rounds, subjects).

    Returns:
        Factors, of shape (rounds,). With fewer than `LEAST_SUBJECTS` subjects all are 1:
        a shared slowdown could not be told from their own noise.
    """
    import numpy as np

    if rounds.shape[1] < LEAST_SUBJECTS:
        return np.ones(len(rounds))
    usual = np.median(rounds, axis=0)
    for _ in range(3):
        found = np.median(rounds / usual, axis=1)
        usual = np.median(rounds / found[:, None], axis=0)
    return np.asarray(found / np.median(found))
