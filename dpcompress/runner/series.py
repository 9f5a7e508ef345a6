"""One subject under the clock: what is asked of it, its sessions, windows and result.

Valid on Python 3.8.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Callable, List, Sequence, Tuple

from dpcompress.runner.clock import Clock, CoreWait, Window
from dpcompress.runner.engine import Session
from dpcompress.runner.statistics import half_iqr, median_interval, quantile


@dataclass(frozen=True)
class Sampling:
    """How long to measure.

    precision: target of half the 95 % confidence interval of a median, relative to it.
    window_ms: least length of a window; it holds at least one inference.
    cold: whether a window starts with the caches as the other subjects left them.
    min_rounds, max_rounds: windows that count, per subject, at least and at most.
    min_seconds: how long to go on at least, of whole networks: a machine is slower for
        some of them than for others, for seconds at a time.
    max_repeats: disturbed windows per subject, at most; then it is finished, as after
        `max_seconds`.
    max_waited: share of a window that threads may wait for a core.
    max_seconds: then a subject is finished with the windows that it has, a slow one
        later (`ENOUGH`, `LONGEST`); of fewer than 5, the least disturbed ones fill up to
        5.
    anchor_tolerance: relative slowness of the anchor that makes windows disturbed.
    sessions: sessions of each subject that take turns, at most; none is added once
        building them has taken `max_seconds`.
    group_bytes, group_size: held in memory at the same time, at most; bytes, as estimated
        (and no more than half of what the machine has left; a group ends, too, when a
        quarter of that is left), sessions.
    """

    precision: float = 0.01
    window_ms: float = 0.0
    cold: bool = True
    min_rounds: int = 300
    max_rounds: int = 600
    min_seconds: float = 0.0
    max_repeats: int = 400
    max_waited: float = 0.01
    max_seconds: float = 0.3
    anchor_tolerance: float = 1.0
    sessions: int = 3
    group_bytes: int = 12_000_000_000
    group_size: int = 1200
    seed: int = 0

    def within(self, most_bytes: int) -> Sampling:
        """With no more than `most_bytes` in memory at the same time."""
        return replace(self, group_bytes=min(self.group_bytes, most_bytes))


OPS = Sampling()
"""Enough for single ops."""

MOMENT = 0.5
"""Seconds, for each of which a kind of subjects has a level of its own."""

ENOUGH, LONGEST = 30, 40
"""Slow subjects get as many windows, for up to so many times `Sampling.max_seconds`."""

FEWEST = 5
"""Windows without which there is no measurement, however long one takes."""


@dataclass(frozen=True)
class Subject:
    """Something to time: `load` makes its session, of about `bytes` in memory. `kind`:
    if it is slowed at other moments than most, what it shares that with."""

    key: str
    load: Callable[[], Session]
    bytes: int = 0
    kind: str = ""


@dataclass(frozen=True)
class Measurement:
    """Milliseconds per inference, from windows of back-to-back inferences.

    spread_ms: half the interquartile range of the windows: how noisy it was.
    error_ms: half the 95 % confidence interval of the median: how well it is known.
    samples: windows that count; disturbed: windows that were thrown away.
    windows_ms: the windows that count; after `compare`, windows of equal index belong
        to the same round.
    """

    median_ms: float
    p90_ms: float
    spread_ms: float
    error_ms: float
    samples: int
    disturbed: int = 0
    windows_ms: Tuple[float, ...] = field(default=(), repr=False, compare=False)

    @classmethod
    def of(cls, windows_ms: Sequence[float], disturbed: int = 0) -> Measurement:
        low, high = median_interval(windows_ms)
        return cls(
            median_ms=quantile(windows_ms, 0.5),
            p90_ms=quantile(windows_ms, 0.9),
            spread_ms=half_iqr(windows_ms),
            error_ms=(high - low) / 2,
            samples=len(windows_ms),
            disturbed=disturbed,
            windows_ms=tuple(windows_ms),
        )


MOST_THREADS = 4000
"""Of this process, from which on a subject gets one session only: an engine may start as
many threads for each as there are cores."""


def clocks(subject: Subject, sampling: Sampling, wait: CoreWait) -> List[Clock]:
    """Its sessions under the clock, as many as `Sampling.sessions` allows."""
    found: List[Clock] = []
    began = time.perf_counter()
    while len(found) < sampling.sessions:
        found.append(clock_of(subject, sampling, wait))
        slow = time.perf_counter() - began > sampling.max_seconds
        if slow or wait.threads() > MOST_THREADS:
            break
    return found


def clock_of(subject: Subject, sampling: Sampling, wait: CoreWait) -> Clock:
    """One new session of it under the clock."""
    return Clock(subject.load(), sampling.window_ms, wait, sampling.cold)


class Lane:
    """One session of a subject and its windows so far, less what the machine was slow."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.windows_ms: List[float] = []
        self.moments: List[int] = []
        self.usual_ms = clock.fastest_ms

    def take(self, window_ms: float) -> None:
        self.windows_ms.append(window_ms)
        self.moments.append(int(time.perf_counter() / MOMENT))
        count = len(self.windows_ms)
        if count < 10 or count % 10 == 0:
            self.usual_ms = median(self.windows_ms)


class Series:
    """A subject's sessions, which take turns, and the windows that were disturbed."""

    def __init__(
        self,
        subject: Subject,
        sampling: Sampling,
        wait: CoreWait,
        earlier: Sequence[float] = (),
    ) -> None:
        self.subject, self.sampling = subject, sampling
        self.lanes = [Lane(clock) for clock in clocks(subject, sampling, wait)]
        self.earlier = list(earlier)
        self.disturbed: List[Window] = []
        self.seconds = sum(self.earlier) / 1e3
        self.turns = 0.0

    @property
    def usual_ms(self) -> float:
        return self.lanes[0].usual_ms

    def window(self) -> Tuple[Lane, Window]:
        """A window of the session whose turn it is."""
        lane = self.lanes[0]
        self.lanes.append(self.lanes.pop(0))
        window = lane.clock.window()
        self.seconds += window.ms * lane.clock.repetitions / 1e3
        return lane, window

    def is_due(self, pace_ms: float) -> bool:
        """Whether it takes part in a round that spends `pace_ms` on a subject: a slow
        one does so now and then only, so that all are finished at about the same time."""
        share = self._most_seconds / self.sampling.max_seconds
        self.turns += min(share * pace_ms / self.usual_ms, 1.0)
        due = self.turns >= 1
        self.turns -= due
        return due

    @property
    def count(self) -> int:
        return len(self.earlier) + sum(len(lane.windows_ms) for lane in self.lanes)

    def windows_ms(self) -> List[float]:
        """All windows that count, as if the sessions were equally fast: as fast as they
        are on average. The median of them all would be one session's where they differ
        by more than their noise."""
        parts = [self.earlier, *(lane.windows_ms for lane in self.lanes)]
        own = [(part, median(part)) for part in parts if part]
        mean_ms = sum(len(part) * ms for part, ms in own) / max(self.count, 1)
        return [window * mean_ms / ms for part, ms in own for window in part]

    @property
    def late(self) -> bool:
        return self.seconds >= self._most_seconds

    @property
    def _most_seconds(self) -> float:
        most = self.sampling.max_seconds
        return max(most, min(ENOUGH * self.usual_ms / 1e3, LONGEST * most))

    @property
    def finished(self) -> bool:
        count = self.count
        if self.late or len(self.disturbed) >= self.sampling.max_repeats:
            return count + len(self.disturbed) >= FEWEST
        if count >= self.sampling.max_rounds:
            return True
        if count < self.sampling.min_rounds or count % 10:  # looking takes time, too
            return False
        low, high = median_interval(self.windows_ms())
        return (high - low) / 2 <= self.sampling.precision * (high + low) / 2

    def measurement(self, level: float) -> Measurement:
        missing = max(FEWEST - self.count, 0)
        fill = sorted(self.disturbed, key=lambda window: window.waited)[:missing]
        windows_ms = [ms * level for ms in self.windows_ms()]
        windows_ms += [window.ms for window in fill]
        return Measurement.of(windows_ms, len(self.disturbed) - len(fill))
