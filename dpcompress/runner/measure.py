"""Times many small graphs so that a disturbed machine disturbs the numbers least.

Subjects are timed in groups, as many at once as memory holds (`group.py`). Groups are
timed one after the other, perhaps on a machine that has become slower. So some subjects
that were timed before are timed along with each group, and its measurements are scaled to
the speed that the machine had then.

Each subject is loaded several times and its sessions take turns: where a session happens
to lie in memory can change its times by several percent for as long as it lives.
"""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Callable, Dict, List, Optional, Sequence

from dpcompress.errors import BadInput
from dpcompress.runner.core_wait import CoreWait
from dpcompress.runner.group import Group
from dpcompress.runner.log import Log
from dpcompress.runner.machine import available_bytes
from dpcompress.runner.measurement import Measurement, Subject
from dpcompress.runner.priority import real_time
from dpcompress.runner.subject_timer import SubjectTimer, start_session
from dpcompress.runner.timing import OpTiming

Progress = Callable[[int, int, str], None]

REFERENCES = 20  # known subjects that are timed along with each group, at most
DEFAULT_BYTES = 3_000_000_000  # of a group, where the system does not tell what is left


@real_time()
def measure(
    subjects: Sequence[Subject],
    timing: OpTiming,
    log: Log,
    *,
    anchor: Optional[Subject] = None,
    progress: Progress = lambda done, total, key: None,
) -> Dict[str, Measurement]:
    """Time the subjects that `log` does not know, and add them to it.

    Args:
        anchor: the subject that tells of disturbances; by default the first of each
            group.
        progress: called with the number of subjects that are finished, of how many, and
            the last one's key.

    Returns:
        The measurements of all subjects that the engine can build, known and new, by
        their keys.
    """
    call = _Measuring(subjects, timing, log, anchor, progress)
    while call.waiting:
        call.time_group()  # its sessions are gone before the next group builds its own
    return {s.key: call.times[s.key] for s in subjects if s.key in call.times}


class _Measuring:
    """A call of `measure`, one group after the other.

    times: the measurements so far, by key.
    waiting: subjects that are neither timed nor rejected yet.
    """

    def __init__(
        self,
        subjects: Sequence[Subject],
        timing: OpTiming,
        log: Log,
        anchor: Optional[Subject],
        progress: Progress,
    ) -> None:
        known = {subject.key: log.known(subject.key) for subject in subjects}
        self.times = {key: time for key, time in known.items() if time is not None}
        self._timed = [subject for subject in subjects if subject.key in self.times]
        self.waiting = [subject for subject in subjects if subject.key not in self.times]
        self._finished, self._total = 0, len(self.waiting)
        self._log, self._progress = log, progress
        self._rng, self._wait = random.Random(timing.seed), CoreWait()
        self._rng.shuffle(self.waiting)
        self._timing = _fewer_sessions(self.waiting, timing)
        self._anchor = None
        if anchor is not None and self.waiting:
            self._anchor = start_session(anchor, self._timing, self._wait)
        self._least_left = (available_bytes() or 0) // 4

    def time_group(self) -> None:
        """Build and time as many waiting subjects as fit into memory."""
        chosen = self._rng.sample(self._timed, min(REFERENCES, len(self._timed)))
        single = replace(self._timing, sessions=1)
        references = {
            SubjectTimer(subject, single, self._wait): self.times[subject.key].median_ms
            for subject in chosen
        }
        timers = self._build()
        if not timers:
            return
        group = Group(timers, references, self._anchor, self._timing, self._rng)
        scale = group.run(self._log, self._finish)
        for timer in timers:
            key = timer.subject.key
            self.times[key] = timer.measurement(scale)
            self._log.finish(key, self.times[key])
            self._timed.append(timer.subject)

    def _build(self) -> List[SubjectTimer]:
        timers: List[SubjectTimer] = []
        size, timing = 0, self._timing
        while self.waiting:
            size += timing.sessions * self.waiting[-1].bytes
            sessions = timing.sessions * (len(timers) + 1)
            full = size > timing.group_bytes or sessions > timing.group_sessions
            if timers and (full or (available_bytes() or 0) < self._least_left):
                break
            subject = self.waiting.pop()
            earlier_ms = self._log.samples(subject.key)
            try:
                timers.append(SubjectTimer(subject, timing, self._wait, earlier_ms))
            except BadInput as error:
                self._log.reject(subject.key, error.with_traceback(None))
        return timers

    def _finish(self, key: str) -> None:
        self._finished += 1
        self._progress(self._finished, self._total, key)


def _fewer_sessions(subjects: Sequence[Subject], timing: OpTiming) -> OpTiming:
    """Fit `timing` into the memory that is left, rather by fewer sessions of each subject
    than by several groups."""
    left = available_bytes()
    timing = timing.within(DEFAULT_BYTES if left is None else left // 2)
    affordable = timing.group_bytes // max(sum(subject.bytes for subject in subjects), 1)
    return replace(timing, sessions=max(min(timing.sessions, affordable), 1))
