"""Times a few whole networks side by side."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from typing import Callable, Dict, List, Sequence

from dpcompress.runner.core_wait import CoreWait
from dpcompress.runner.measurement import Measurement, Subject
from dpcompress.runner.priority import real_time
from dpcompress.runner.session_timer import Sample, SessionTimer
from dpcompress.runner.statistics import half_iqr, median_interval, quantile, slowdowns
from dpcompress.runner.subject_timer import LEAST_SAMPLES, start_sessions
from dpcompress.runner.timing import NETWORKS, NetworkTiming

Round = List[Sample]  # a sample of each subject, in their order


@real_time()
def compare(
    subjects: Sequence[Subject],
    timing: NetworkTiming = NETWORKS,
    *,
    progress: Callable[[int, int, str], None] = lambda done, total, note: None,
) -> Dict[str, Measurement]:
    """Time all subjects in every round, in a shuffled order, all in memory at once.

    A round in which a thread waited for a core is disturbed and repeated; after
    `max_disturbed` of them the least disturbed ones fill up to `min_rounds`. All subjects
    keep the same rounds, so that ratios can be taken round by round: see `ratio`. With
    five subjects or more, a slowdown that all share in a round is divided out.

    Raises:
        BadInput: the engine rejects a subject.
    """
    rng, wait = random.Random(timing.seed), CoreWait()
    calm: List[Round] = []
    disturbed: List[Round] = []
    sessions = [start_sessions(subject, timing, wait) for subject in subjects]
    began = time.perf_counter()
    while not _enough(calm, disturbed, time.perf_counter() - began, timing):
        number = len(calm) + len(disturbed)
        samples = _round([own[number % len(own)] for own in sessions], rng)
        left_alone = _waited(samples) <= timing.max_waited
        (calm if left_alone else disturbed).append(samples)
        if left_alone:
            seconds = time.perf_counter() - began
            by_time = len(calm) * max(timing.min_seconds / seconds, 1)
            progress(len(calm), max(timing.max_rounds, round(by_time)), "")
    import numpy as np

    missing = max(timing.min_rounds - len(calm), 0)
    fill = sorted(disturbed, key=_waited)[:missing]
    rounds = np.array([[sample.ms for sample in samples] for samples in calm + fill])
    rounds /= slowdowns(rounds)[:, None]
    return {
        subject.key: Measurement.of(rounds[:, i].tolist(), len(disturbed) - len(fill))
        for i, subject in enumerate(subjects)
    }


def _round(sessions: Sequence[SessionTimer], rng: random.Random) -> Round:
    """Take a sample of each session, in a shuffled order."""
    found: Dict[int, Sample] = {}
    for i in rng.sample(range(len(sessions)), len(sessions)):
        found[i] = sessions[i].sample()
    return [found[i] for i in range(len(sessions))]


def _waited(samples: Round) -> float:
    return max(sample.waited for sample in samples)


def _enough(
    calm: List[Round], disturbed: List[Round], seconds: float, timing: NetworkTiming
) -> bool:
    """Whether the rounds taken in `seconds` are enough, or no more are to be taken."""
    if seconds >= timing.max_seconds:
        return len(calm) + len(disturbed) >= LEAST_SAMPLES
    if seconds < timing.min_seconds:
        return False
    if len(disturbed) >= timing.max_disturbed:
        return len(calm) + len(disturbed) >= timing.min_rounds
    if len(calm) < timing.min_rounds:
        return False
    by_subject = zip(*([sample.ms for sample in samples] for samples in calm))
    intervals = [median_interval(samples_ms) for samples_ms in by_subject]
    known = all(b - a <= timing.precision * (b + a) for a, b in intervals)
    return known or len(calm) >= timing.max_rounds


@dataclass(frozen=True)
class Ratio:
    """The ratio of two times, taken round by round: drift that slows both cancels.

    low, high: 95 % confidence interval of the median.
    spread: half the interquartile range of the rounds' ratios.
    """

    median: float
    low: float
    high: float
    spread: float


def ratio(slow: Measurement, fast: Measurement) -> Ratio:
    """Compute how many times faster `fast` is than `slow`, both from one `compare`."""
    ratios = [a / b for a, b in zip(slow.samples_ms, fast.samples_ms)]
    low, high = median_interval(ratios)
    return Ratio(quantile(ratios, 0.5), low, high, half_iqr(ratios))
