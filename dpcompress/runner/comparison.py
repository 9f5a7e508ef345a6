"""Timing a few whole networks side by side. Valid on Python 3.8."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from typing import Callable, Dict, List, Sequence

import numpy as np

from dpcompress.runner.clock import Clock, CoreWait, Window
from dpcompress.runner.priority import real_time
from dpcompress.runner.series import FEWEST, Measurement, Sampling, Subject, clocks
from dpcompress.runner.statistics import half_iqr, levels, median_interval, quantile

NETWORKS = Sampling(
    window_ms=2.0,
    cold=False,
    min_rounds=25,
    max_rounds=80,
    min_seconds=3.0,
    max_repeats=40,
    max_seconds=30.0,
)
"""Enough for whole networks: most windows are a single inference."""


@real_time()
def compare(
    subjects: Sequence[Subject],
    sampling: Sampling = NETWORKS,
    *,
    progress: Callable[[int, int, str], None] = lambda done, total, note: None,
) -> Dict[str, Measurement]:
    """Time all subjects in every round, in a shuffled order, all in memory at once.

    A round in which a thread waited for a core is disturbed and repeated; after
    `max_repeats` the least disturbed rounds fill up to `min_rounds`. All subjects keep
    the same rounds, so that ratios can be taken round by round: see `ratio`. Of five
    subjects or more, what a round was slower or faster for all of them is taken off.
    The sessions of a subject take turns.
    """
    rng, wait = random.Random(sampling.seed), CoreWait()
    calm: List[List[Window]] = []
    disturbed: List[List[Window]] = []
    sessions = [clocks(subject, sampling, wait) for subject in subjects]
    began = time.perf_counter()
    while not _enough(calm, disturbed, time.perf_counter() - began, sampling):
        turn = len(calm) + len(disturbed)
        windows = _round([own[turn % len(own)] for own in sessions], rng)
        left_alone = _waited(windows) <= sampling.max_waited
        (calm if left_alone else disturbed).append(windows)
        if left_alone:
            seconds = time.perf_counter() - began
            by_time = len(calm) * max(sampling.min_seconds / seconds, 1)
            progress(len(calm), max(sampling.max_rounds, round(by_time)), "")
    missing = max(sampling.min_rounds - len(calm), 0)
    fill = sorted(disturbed, key=_waited)[:missing]
    rounds = np.array([[window.ms for window in windows] for windows in calm + fill])
    rounds /= levels(rounds)[:, None]
    return {
        subject.key: Measurement.of(rounds[:, i].tolist(), len(disturbed) - len(fill))
        for i, subject in enumerate(subjects)
    }


def _round(turn: Sequence[Clock], rng: random.Random) -> List[Window]:
    found: Dict[int, Window] = {}
    for i in rng.sample(range(len(turn)), len(turn)):
        found[i] = turn[i].window()
    return [found[i] for i in range(len(turn))]


def _waited(windows: Sequence[Window]) -> float:
    return max(window.waited for window in windows)


def _enough(
    calm: List[List[Window]],
    disturbed: List[List[Window]],
    seconds: float,
    sampling: Sampling,
) -> bool:
    if seconds >= sampling.max_seconds:
        return len(calm) + len(disturbed) >= FEWEST
    if seconds < sampling.min_seconds:
        return False
    if len(disturbed) >= sampling.max_repeats:
        return len(calm) + len(disturbed) >= sampling.min_rounds
    if len(calm) < sampling.min_rounds:
        return False
    series = zip(*([window.ms for window in windows] for windows in calm))
    intervals = [median_interval(windows_ms) for windows_ms in series]
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
