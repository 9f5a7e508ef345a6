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
from collections import defaultdict
from dataclasses import replace
from statistics import median
from typing import Callable, Dict, List, Mapping, Optional, Sequence

from dpcompress.errors import BadInput
from dpcompress.runner.clock import Clock, CoreWait
from dpcompress.runner.log import Log
from dpcompress.runner.memory import available_bytes
from dpcompress.runner.priority import real_time
from dpcompress.runner.series import (
    Measurement,
    Sampling,
    Series,
    Subject,
    clock_of,
)
from dpcompress.runner.statistics import CROWD, quantile

FAST = 0.1
"""The quantile of the machine's levels that rows are given at."""


@real_time()
def measure(
    subjects: Sequence[Subject],
    sampling: Sampling,
    log: Log,
    *,
    anchor: Optional[Subject] = None,
    progress: Callable[[int, int, str], None] = lambda done, total, note: None,
) -> Dict[str, Measurement]:
    """Time the subjects that `log` does not know on the machine as it is now.

    Some of those that it knows are timed along, so that the new measurements are given
    at the machine's speed of the old ones.

    Args:
        anchor: the subject that tells of disturbances; by default the first of each
            group.
        progress: called with the number of subjects that are finished, of how many, and
            the last one's key.

    Returns:
        The measurements of all subjects that the engine can build, known and new.
    """
    known = {subject.key: log.known(subject.key) for subject in subjects}
    found = {key: time for key, time in known.items() if time is not None}
    order = [subject for subject in subjects if subject.key not in found]
    rng = random.Random(sampling.seed)
    rng.shuffle(order)
    sampling = _fitting(order, sampling)
    wait = CoreWait()
    watch = clock_of(anchor, sampling, wait) if anchor and order else None
    before = [(s, found[s.key].median_ms) for s in subjects if s.key in found]
    least_left = (available_bytes() or 0) // 4
    counted = _Counted(len(order), progress)

    def build() -> List[Series]:
        running: List[Series] = []
        size = 0
        while order:
            size += sampling.sessions * order[-1].bytes
            sessions = sampling.sessions * (len(running) + 1)
            full = size > sampling.group_bytes or sessions > sampling.group_size
            if running and (full or (available_bytes() or 0) < least_left):
                break
            subject = order.pop()
            try:
                samples_ms = log.samples(subject.key)
                running.append(Series(subject, sampling, wait, samples_ms))
            except BadInput as error:
                log.reject(subject.key, error.with_traceback(None))
        return running

    def time_group() -> None:
        references = {
            Series(subject, replace(sampling, sessions=1), wait): ms
            for subject, ms in rng.sample(before, min(REFERENCES, len(before)))
        }
        running = build()
        if not running:
            return
        level = _Group(running, references, watch, sampling, rng).run(log, counted)
        for series in running:
            key = series.subject.key
            found[key] = series.measurement(level)
            log.finish(key, found[key])
            before.append((series.subject, found[key].median_ms))

    while order:
        time_group()  # which leaves no session behind when the next one builds its own
    return {s.key: found[s.key] for s in subjects if s.key in found}


class _Counted:
    """Tells `progress` how many subjects are finished."""

    def __init__(self, total: int, progress: Callable[[int, int, str], None]) -> None:
        self.count, self.total, self.progress = 0, total, progress

    def add(self, key: str) -> None:
        self.count += 1
        self.progress(self.count, self.total, key)


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


def _take_off_own(kind: Sequence[Series]) -> None:
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
        running: List[Series],
        references: Mapping[Series, float],
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

    def run(self, log: Log, counted: _Counted) -> float:
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
            new: Dict[Series, float] = {}
            for at in range(0, len(turn), self.STRETCH):
                new.update(self._time(turn[at : at + self.STRETCH]))
            log.add_samples({s.subject.key: new[s] for s in self.running if s in new})
            ended = {s for s in waiting if s.finished}
            for series in ended:
                counted.add(series.subject.key)
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

    def _time(self, turn: List[Series]) -> Dict[Series, float]:
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
