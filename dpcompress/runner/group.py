"""Times a group of subjects in rounds, and divides out what slowed all of them.

A round takes one sample of each subject, in a new shuffled order: so all of them meet the
same drift of the machine, and each finds the caches as cold as an op in a network, where
everything else ran since.

The slowdown that a few consecutive samples of different subjects share is the machine's,
and is divided out; so is one that ops of one kind share in the same half second. The
samples are then scaled to the machine's speed in its fastest tenth: how slow it usually
is changes with every minute, and with what else its host does.

A sample is disturbed, and taken again, if a thread of this process waited for a core
meanwhile, if that happened to most of the samples around it, or if the anchor, a session
that is timed again and again in between, was much slower than usual.
"""

from __future__ import annotations

import random
from collections import defaultdict
from statistics import median
from typing import Callable, Dict, List, Mapping, Optional, Sequence

from dpcompress.runner.log import Log
from dpcompress.runner.session_timer import SessionTimer
from dpcompress.runner.statistics import LEAST_SUBJECTS, quantile
from dpcompress.runner.subject_timer import SubjectTimer
from dpcompress.runner.timing import OpTiming

FASTEST = 0.1  # results are given at this quantile of the machine's slowdowns
BURST = 10  # consecutive samples that share one slowdown and one look at the anchor


class Group:
    """A group of subjects that are held in memory and timed at the same time.

    Args:
        timers: one per subject to time.
        references: timers of subjects that were timed before → their milliseconds then.
        anchor: the session that tells of disturbances; None takes the first subject's.
    """

    def __init__(
        self,
        timers: Sequence[SubjectTimer],
        references: Mapping[SubjectTimer, float],
        anchor: Optional[SessionTimer],
        timing: OpTiming,
        rng: random.Random,
    ) -> None:
        self._timers, self._references = timers, references
        self._every = [*timers, *references]
        self._anchor = anchor or timers[0].sessions[0].timer
        self._timing, self._rng = timing, rng
        self._anchor_ms: List[float] = []
        self._slowdowns: List[float] = []
        for timer in self._every:  # slow subjects take part in different rounds
            timer.due = rng.random()

    def run(self, log: Log, finished: Callable[[str], None]) -> float:
        """Take samples until every subject has enough; returns the factor that scales
        their samples to the speed of the machine that results are given at.

        A finished subject runs along until its time is spent: fewer subjects would find
        warmer caches, and be timed at other moments of the machine than the rest.
        """
        for _ in range(5):
            self._is_calm()
        least_ms = 1e3 * self._timing.max_seconds / self._timing.max_samples
        waiting = list(self._timers)
        active = list(self._every)
        while waiting:
            round_ms = max(least_ms, min(timer.usual_ms for timer in active))
            due = [timer for timer in active if timer.is_due(round_ms)]
            self._rng.shuffle(due)
            new: Dict[SubjectTimer, float] = {}
            for at in range(0, len(due), BURST):
                new.update(self._sample(due[at : at + BURST]))
            log.add_samples({t.subject.key: new[t] for t in self._timers if t in new})
            ended = [timer for timer in waiting if timer.finished]
            for timer in ended:
                finished(timer.subject.key)
            waiting = [timer for timer in waiting if timer not in ended]
            needed = {*waiting, *self._references}
            active = [timer for timer in active if timer in needed or not timer.late]
        for kind in {timer.subject.kind for timer in self._every} - {""}:
            divide_out_slowdowns([t for t in self._every if t.subject.kind == kind])
        return self._scale()

    def _scale(self) -> float:
        """The factor from times taken now to those of the references' earlier timing;
        without references, the machine's slowdown in its fastest tenth."""
        then_and_now = [
            known_ms / median(timer.samples_ms())
            for timer, known_ms in self._references.items()
            if timer.count
        ]
        if then_and_now:
            return median(then_and_now)
        return quantile(self._slowdowns, FASTEST) if self._slowdowns else 1.0

    def _sample(self, timers: Sequence[SubjectTimer]) -> Dict[SubjectTimer, float]:
        """Take a sample of each of a few subjects, and divide out the slowdown that they
        share; returns the milliseconds of those that are undisturbed."""
        taken = [(timer, *timer.sample()) for timer in timers]
        alone = [sample.waited <= self._timing.max_waited for _, _, sample in taken]
        calm, slowdown = self._is_calm(), 1.0
        if len(taken) >= LEAST_SUBJECTS:
            ratios = [sample.ms / session.usual_ms for _, session, sample in taken]
            undisturbed = [ratio for ratio, good in zip(ratios, alone) if good]
            calm = calm and 2 * len(undisturbed) > len(taken)
            if calm:
                slowdown = quantile(undisturbed, 0.5)
                self._slowdowns.append(slowdown)
        counted = {}
        for (timer, session, sample), good in zip(taken, alone):
            if calm and good:
                session.add(sample.ms / slowdown)
                counted[timer] = sample.ms / slowdown
            else:
                timer.disturbed.append(sample)
        return counted

    def _is_calm(self) -> bool:
        """Time the anchor; returns whether it is not much slower than usual."""
        sample_ms = self._anchor.sample().ms
        self._anchor_ms.append(sample_ms)
        usual_ms = quantile(self._anchor_ms[-200:], 0.25)
        return sample_ms <= usual_ms * (1 + self._timing.anchor_tolerance)


def divide_out_slowdowns(timers: Sequence[SubjectTimer]) -> None:
    """Divide out of the samples the slowdowns that all ops of one kind share in the same
    period (`SessionTimes.periods`), then scale them to the fastest tenth of the periods.

    Args:
        timers: of all subjects of the kind; of too few, nothing is changed.
    """
    if len(timers) < LEAST_SUBJECTS:
        return
    sessions = [s for timer in timers for s in timer.sessions if s.samples_ms]
    ratios: Dict[int, List[float]] = defaultdict(list)
    for session in sessions:
        usual_ms = median(session.samples_ms)
        for period, ms in zip(session.periods, session.samples_ms):
            ratios[period].append(ms / usual_ms)
    slowdowns = {
        period: median(found)
        for period, found in ratios.items()
        if len(found) >= LEAST_SUBJECTS
    }
    fast = quantile(list(slowdowns.values()), FASTEST) if slowdowns else 1.0
    for session in sessions:
        session.samples_ms = [
            ms * fast / slowdowns.get(period, 1.0)
            for period, ms in zip(session.periods, session.samples_ms)
        ]
