"""Times one session, and tells what disturbed it."""

from __future__ import annotations

import time
from collections import Counter
from typing import Collection, Dict, NamedTuple

from dpcompress.runner.core_wait import CoreWait, ThreadTimes, this_thread
from dpcompress.runner.engine import Session

WAKING_MS = 0.1  # an engine's workers may take this long to wake up, per inference


class Sample(NamedTuple):
    """A timed number of back-to-back inferences.

    ms: milliseconds per inference.
    waited: share of the time, from 0 to 1, that a thread of this process was ready to
        run and waited for a core.
    """

    ms: float
    waited: float


class SessionTimer:
    """Takes samples of one session, which is warmed up when the timer is made.

    Args:
        sample_ms: length of a sample, at least; it holds at least one inference.
        cold: whether a sample starts with the caches as other sessions left them,
            otherwise an inference that is not timed comes first.
    """

    def __init__(
        self, session: Session, sample_ms: float, wait: CoreWait, cold: bool = False
    ) -> None:
        self._session, self._wait, self._sample_ms = session, wait, sample_ms
        self._cold = cold
        self.fastest_ms = float("inf")
        self.repetitions = 1
        self._threads: Collection[str] = ()
        self._samples = 0
        self._began: Dict[str, int] = Counter()
        self._warm_up()

    def _warm_up(self) -> None:
        """Run until two samples agree within 2 %, for 12 samples (3 if cold, as they do
        not get warmer), or for 0.2 seconds."""
        began = time.perf_counter()
        self._session.run_many(1)
        before = self._wait.snapshot()
        last = 0.0
        for _ in range(3 if self._cold else 12):
            now = self.sample().ms
            self.fastest_ms = min(self.fastest_ms, now)
            self.repetitions = max(1, round(self._sample_ms / self.fastest_ms))
            late = time.perf_counter() - began > 0.2
            if late or abs(now - last) <= 0.02 * now:
                break
            last = now
        self._threads = {*self._wait.ran(before), this_thread()}

    def sample(self) -> Sample:
        """Take one sample."""
        if not self._cold:
            self._session.run_many(1)
        before = self._wait.snapshot(self._threads)
        seconds = max(self._session.run_many(self.repetitions), 1e-9)
        waited = self._waited(before, seconds) / seconds
        return Sample(seconds * 1e3 / self.repetitions, min(waited, 1.0))

    def _waited(self, before: ThreadTimes, seconds: float) -> float:
        """The seconds of a sample that its longest waiting thread waited.

        Waking its own workers is part of an engine's work, so `WAKING_MS` is subtracted.
        A thread that takes part in most samples, but did not even begin in this one,
        waited for all of it: Linux counts a wait when it ends.
        """
        if not before:  # still warming up, or the system does not count
            return 0.0
        now = self._wait.snapshot(before)
        began = {t for t in now if now[t] != before[t]} | {this_thread()}
        self._samples += 1
        for thread in began:
            self._began[thread] += 1
        usual = {t for t in before if 2 * self._began[t] > self._samples}
        if not usual <= began:
            return seconds
        waits = (now[thread][1] - before[thread][1] for thread in now)
        waking = self.repetitions * WAKING_MS / 1e3
        return max(max(waits, default=0) / 1e9 - waking, 0.0)
