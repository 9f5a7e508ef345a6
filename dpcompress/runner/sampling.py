"""Timing many graphs so that a disturbed machine disturbs the numbers least.

Every round times each subject once, in a new shuffled order: so all of them meet the same
drift, and each finds the caches as cold as an op in a network, where everything else ran
since. What a stretch of windows was slower or faster for all of its subjects is taken
off, and a row is what it takes where the machine is as fast as in its fastest tenth: how
slow it usually is changes with every minute, and with what else its host does. What slows
a kind of subjects at moments of its own is taken off likewise.

A window is disturbed, and repeated, when a thread of this process waited for a core
meanwhile, or when that happened to most windows around it, or when the anchor (one
subject that is timed again and again in between) was much slower than usual. Each subject
is loaded several times, and its sessions take turns: where one happens to lie in memory
can change its times by several percent, for as long as it lives. Valid on Python 3.8.
"""

from __future__ import annotations

import random
import time
from collections import defaultdict
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Callable, Dict, List, Mapping, Optional, Sequence, Tuple

from dpcompress.errors import BadInput
from dpcompress.runner.clock import Clock, CoreWait, Window
from dpcompress.runner.engine import Session
from dpcompress.runner.memory import available_bytes
from dpcompress.runner.priority import real_time
from dpcompress.runner.statistics import CROWD, half_iqr, median_interval, quantile


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

FAST = 0.1
"""The quantile of the machine's levels that rows are given at."""

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


@real_time()
def measure(
    subjects: Sequence[Subject],
    sampling: Sampling = OPS,
    *,
    anchor: Optional[Subject] = None,
    known: Sequence[Tuple[Subject, float]] = (),
    earlier: Optional[Mapping[str, Sequence[float]]] = None,
    keep: Callable[[Mapping[str, Sequence[float]]], None] = lambda windows_ms: None,
    rejected: Optional[Callable[[str, BadInput], None]] = None,
    done: Callable[[str, Measurement], None] = lambda key, measurement: None,
    progress: Callable[[int, int, str], None] = lambda done, total, note: None,
) -> Dict[str, Measurement]:
    """Time every subject on the machine as it is now.

    Args:
        anchor: what tells of disturbances; by default the first subject of each group.
        known: subjects with the milliseconds that they took before. Some of them are
            timed along, so that the new ones are given at the level of the old.
        earlier: windows of an earlier, interrupted call, by subject.
        keep: called after each round with its windows, for `earlier` of a later call.
        rejected: called with a subject that the engine cannot build, which is left out
            of the result then; without it the error is raised.
        done: called with each finished measurement.
        progress: called with finished subjects, their total, and a note.
    """
    rng = random.Random(sampling.seed)
    order = list(subjects)
    rng.shuffle(order)
    sampling = _fitting(order, sampling)
    wait = CoreWait()
    found: Dict[str, Measurement] = {}

    count = 0

    def finished(series: _Series) -> None:
        nonlocal count
        count += 1
        progress(count, len(subjects), series.subject.key)

    watch = _clock(anchor, sampling, wait) if anchor else None
    before = list(known)
    least_left = (available_bytes() or 0) // 4

    def build() -> List[_Series]:
        running: List[_Series] = []
        size = 0
        while order:
            size += sampling.sessions * order[-1].bytes
            count = sampling.sessions * (len(running) + 1)
            full = size > sampling.group_bytes or count > sampling.group_size
            if running and (full or (available_bytes() or 0) < least_left):
                break
            subject = order.pop()
            try:
                windows_ms = (earlier or {}).get(subject.key, ())
                running.append(_Series(subject, sampling, wait, windows_ms))
            except BadInput as error:
                if rejected is None:
                    raise
                rejected(subject.key, error.with_traceback(None))
        return running

    def time_group() -> None:
        references = {
            _Series(subject, replace(sampling, sessions=1), wait): ms
            for subject, ms in rng.sample(before, min(REFERENCES, len(before)))
        }
        running = build()
        if not running:
            return
        level = _Group(running, references, watch, sampling, rng).run(keep, finished)
        for series in running:
            key = series.subject.key
            found[key] = series.measurement(level)
            done(key, found[key])
            before.append((series.subject, found[key].median_ms))

    while order:
        time_group()  # which leaves no session behind when the next one builds its own
    return {s.key: found[s.key] for s in subjects if s.key in found}


def _fitting(subjects: Sequence[Subject], sampling: Sampling) -> Sampling:
    """Fewer sessions of each rather than several groups: groups are timed one after the
    other, and meet the machine at other levels."""
    left = available_bytes()
    sampling = sampling.within(UNKNOWN_BYTES if left is None else left // 2)
    fit = sampling.group_bytes // max(sum(subject.bytes for subject in subjects), 1)
    return replace(sampling, sessions=max(min(sampling.sessions, fit), 1))


REFERENCES = 20
"""Known subjects that are timed along with new ones."""

UNKNOWN_BYTES = 3_000_000_000
"""Held at the same time where the system does not tell what is left."""

MOST_THREADS = 4000
"""Of this process, from which on a subject gets one session only: an engine may start as
many threads for each as there are cores."""


def clocks(subject: Subject, sampling: Sampling, wait: CoreWait) -> List[Clock]:
    """Its sessions under the clock, as many as `Sampling.sessions` allows."""
    found: List[Clock] = []
    began = time.perf_counter()
    while len(found) < sampling.sessions:
        found.append(_clock(subject, sampling, wait))
        slow = time.perf_counter() - began > sampling.max_seconds
        if slow or wait.threads() > MOST_THREADS:
            break
    return found


def _clock(subject: Subject, sampling: Sampling, wait: CoreWait) -> Clock:
    return Clock(subject.load(), sampling.window_ms, wait, sampling.cold)


class _Lane:
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


class _Series:
    """A subject's sessions, which take turns, and the windows that were disturbed."""

    def __init__(
        self,
        subject: Subject,
        sampling: Sampling,
        wait: CoreWait,
        earlier: Sequence[float] = (),
    ) -> None:
        self.subject, self.sampling = subject, sampling
        self.lanes = [_Lane(clock) for clock in clocks(subject, sampling, wait)]
        self.earlier = list(earlier)
        self.disturbed: List[Window] = []
        self.seconds = sum(self.earlier) / 1e3
        self.turns = 0.0

    @property
    def usual_ms(self) -> float:
        return self.lanes[0].usual_ms

    def window(self) -> Tuple[_Lane, Window]:
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


def _take_off_own(kind: Sequence[_Series]) -> None:
    """What the moments were slower for all of a kind than for others; its windows become
    those of its fastest tenth."""
    if len(kind) < CROWD:
        return
    lanes = [lane for series in kind for lane in series.lanes if lane.windows_ms]
    ratios: Dict[int, List[float]] = defaultdict(list)
    for lane in lanes:
        usual_ms = median(lane.windows_ms)
        for moment, ms in zip(lane.moments, lane.windows_ms):
            ratios[moment].append(ms / usual_ms)
    levels = {m: median(found) for m, found in ratios.items() if len(found) >= CROWD}
    fast = quantile(list(levels.values()), FAST) if levels else 1.0
    for lane in lanes:
        lane.windows_ms = [
            ms * fast / levels.get(moment, 1.0)
            for moment, ms in zip(lane.moments, lane.windows_ms)
        ]


class _Group:
    """Subjects that are timed in turn, watched over by the anchor and by each other."""

    STRETCH = 10
    """Windows between two looks at the anchor; their level is taken off."""

    def __init__(
        self,
        running: List[_Series],
        references: Mapping[_Series, float],
        anchor: Optional[Clock],
        sampling: Sampling,
        rng: random.Random,
    ) -> None:
        self.running, self.references = running, references
        self.anchor = anchor or running[0].lanes[0].clock
        self.sampling, self.rng = sampling, rng
        self.anchor_ms: List[float] = []
        self.levels: List[float] = []
        for series in [*running, *references]:
            series.turns = rng.random()

    def run(
        self,
        keep: Callable[[Mapping[str, Sequence[float]]], None],
        finished: Callable[[_Series], None],
    ) -> float:
        """Rounds until every series is finished; returns the level to give rows at.

        What is finished runs along until it is late: fewer subjects would find warmer
        caches, and be timed at other moments of the machine than the rest.
        """
        for _ in range(5):
            self._is_calm()
        least_ms = 1e3 * self.sampling.max_seconds / self.sampling.max_rounds
        waiting = self.running
        active = [*waiting, *self.references]
        while waiting:
            pace_ms = max(least_ms, min(s.usual_ms for s in active))
            turn = [s for s in active if s.is_due(pace_ms)]
            self.rng.shuffle(turn)
            new: Dict[_Series, float] = {}
            for at in range(0, len(turn), self.STRETCH):
                new.update(self._time(turn[at : at + self.STRETCH]))
            keep({s.subject.key: [new[s]] for s in self.running if s in new})
            ended = {s for s in waiting if s.finished}
            for series in ended:
                finished(series)
            waiting = [s for s in waiting if s not in ended]
            needed = {*waiting, *self.references}
            active = [s for s in active if s in needed or not s.late]
        every = [*self.running, *self.references]
        for kind in {s.subject.kind for s in every} - {""}:
            _take_off_own([s for s in every if s.subject.kind == kind])
        return self._level()

    def _level(self) -> float:
        """That of the references when they were known, else of the fastest tenth."""
        then_and_now = [
            known_ms / median(series.windows_ms())
            for series, known_ms in self.references.items()
            if series.count
        ]
        if then_and_now:
            return median(then_and_now)
        return quantile(self.levels, FAST) if self.levels else 1.0

    def _time(self, turn: List[_Series]) -> Dict[_Series, float]:
        """A window of each; those that count, ms."""
        timed = [(series, *series.window()) for series in turn]
        alone = [w.waited <= self.sampling.max_waited for _, _, w in timed]
        calm, level = self._is_calm(), 1.0
        if len(timed) >= CROWD:
            ratios = [w.ms / lane.usual_ms for _, lane, w in timed]
            undisturbed = [ratio for ratio, good in zip(ratios, alone) if good]
            calm = calm and 2 * len(undisturbed) > len(timed)
            if calm:
                level = quantile(undisturbed, 0.5)
                self.levels.append(level)
        counted = {}
        for (series, lane, window), good in zip(timed, alone):
            if calm and good:
                lane.take(window.ms / level)
                counted[series] = window.ms / level
            else:
                series.disturbed.append(window)
        return counted

    def _is_calm(self) -> bool:
        """Whether the anchor, timed now, is not much slower than usual."""
        window_ms = self.anchor.window().ms
        self.anchor_ms.append(window_ms)
        usual = quantile(self.anchor_ms[-200:], 0.25)
        return window_ms <= usual * (1 + self.sampling.anchor_tolerance)
