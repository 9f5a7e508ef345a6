"""Timing a few whole networks side by side. Valid on Python 3.8."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Callable, Dict, List, Sequence, Tuple

from dpcompress.runner.clock import Clock
from dpcompress.runner.disturbance import CoreWait
from dpcompress.runner.sampling import Measurement, Sampling, Subject
from dpcompress.runner.statistics import half_iqr, median_interval, quantile

NETWORKS = Sampling(window_ms=2.0, min_rounds=25, max_rounds=80, max_repeats=100)
"""Enough for whole networks: most windows are a single inference."""


def compare(
    subjects: Sequence[Subject],
    sampling: Sampling = NETWORKS,
    *,
    progress: Callable[[int, int, str], None] = lambda done, total, note: None,
) -> Dict[str, Measurement]:
    """Time all subjects in every round, in a shuffled order, all in memory at once.

    A round in which a thread waited for a core is disturbed and repeated; after
    `max_repeats` the fastest disturbed rounds fill up to `min_rounds`. All subjects keep
    the same rounds, so that ratios can be taken round by round: see `ratio`.
    """
    rng, wait = random.Random(sampling.seed), CoreWait()
    try:
        clocks = [
            Clock(s.load(), sampling.window_ms, sampling.core_wait, wait)
            for s in subjects
        ]
        wait.find_threads()
        calm: List[List[float]] = []
        disturbed: List[List[float]] = []
        while not _enough(calm, disturbed, sampling):
            times, alone = _round(clocks, rng)
            (calm if alone else disturbed).append(times)
            progress(min(len(calm), sampling.max_rounds), sampling.max_rounds, "")
    finally:
        wait.close()
    missing = max(sampling.min_rounds - len(calm), 0)
    rounds = calm + sorted(disturbed, key=sum)[:missing]
    lost = max(len(disturbed) - missing, 0)
    return {
        s.key: Measurement.of([times[i] for times in rounds], lost)
        for i, s in enumerate(subjects)
    }


def _round(clocks: Sequence[Clock], rng: random.Random) -> Tuple[List[float], bool]:
    times, alone = [0.0] * len(clocks), True
    for i in rng.sample(range(len(clocks)), len(clocks)):
        times[i], left_alone = clocks[i].window()
        alone = alone and left_alone
    return times, alone


def _enough(
    calm: List[List[float]], disturbed: List[List[float]], sampling: Sampling
) -> bool:
    if len(disturbed) >= sampling.max_repeats:
        return len(calm) + len(disturbed) >= sampling.min_rounds
    if len(calm) < sampling.min_rounds:
        return False
    intervals = [median_interval(windows) for windows in zip(*calm)]
    known = all(b - a <= sampling.precision * (b + a) for a, b in intervals)
    return known or len(calm) >= sampling.max_rounds


@dataclass(frozen=True)
class Ratio:
    """A ratio of two times, taken round by round: drift that hits both cancels.

    low, high: 95 % confidence interval of the median; spread: half the interquartile
    range of the rounds' ratios.
    """

    median: float
    low: float
    high: float
    spread: float


def ratio(slow: Measurement, fast: Measurement) -> Ratio:
    """How many times faster `fast` is than `slow`; both from one `compare`."""
    pairs = zip(slow.windows_ms, fast.windows_ms)
    ratios = [a / b for a, b in pairs]
    low, high = median_interval(ratios)
    return Ratio(quantile(ratios, 0.5), low, high, half_iqr(ratios))
