"""One session under the clock, and who got in its way. Valid on Python 3.8."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from typing import Collection, Dict, List, NamedTuple, Optional, Tuple

from dpcompress.runner.engine import Session

WAKING_MS = 0.1
"""What the waking of an engine's own workers may take, per inference."""


Snapshot = Dict[str, Tuple[int, int]]


class Window(NamedTuple):
    """Milliseconds per inference; `waited`: the share of the window that a thread of
    this process, ready to run, waited for a core."""

    ms: float
    waited: float


class Clock:
    """Times windows of at least `window_ms`, and of at least one inference; warmed up
    when made. `cold`: what others push out of the caches between two windows stays out.
    """

    def __init__(
        self, session: Session, window_ms: float, wait: CoreWait, cold: bool = False
    ) -> None:
        self._session, self._wait, self._window_ms = session, wait, window_ms
        self._cold = cold
        self.fastest_ms = float("inf")
        self.repetitions = 1
        self._threads: Collection[str] = ()
        self._windows = 0
        self._began: Dict[str, int] = Counter()
        self._warm_up()

    def _warm_up(self) -> None:
        """Run until two windows agree within 2 %, for 12 windows (cold ones will not be
        as warm: 3), or for 0.2 seconds."""
        began = time.perf_counter()
        self._session.run_many(1)
        before = self._wait.snapshot()
        last = 0.0
        for _ in range(3 if self._cold else 12):
            now = self.window().ms
            self.fastest_ms = min(self.fastest_ms, now)
            self.repetitions = max(1, round(self._window_ms / self.fastest_ms))
            late = time.perf_counter() - began > 0.2
            if late or abs(now - last) <= 0.02 * now:
                break
            last = now
        self._threads = {*self._wait.ran(before), _this_thread()}

    def window(self) -> Window:
        """Time one window; unless cold, after an inference that brings back to the
        caches what others pushed out.

        Waking its own workers is part of an engine's work. So only what threads wait
        beyond `WAKING_MS` counts as a disturbance. A thread that takes part in most
        windows, but in this one did not even begin, waited for all of it: Linux counts a
        wait when it ends.
        """
        if not self._cold:
            self._session.run_many(1)
        before = self._wait.snapshot(self._threads)
        seconds = max(self._session.run_many(self.repetitions), 1e-9)
        waited = self._waited(before, seconds) / seconds
        return Window(seconds * 1e3 / self.repetitions, min(waited, 1.0))

    def _waited(self, before: Snapshot, seconds: float) -> float:
        """Seconds of a window that the thread that waited longest waited."""
        if not before:  # still warming up, or nobody counts
            return 0.0
        now = self._wait.snapshot(before)
        began = {t for t in now if now[t] != before[t]} | {_this_thread()}
        self._windows += 1
        for thread in began:
            self._began[thread] += 1
        usual = {t for t in before if 2 * self._began[t] > self._windows}
        if not usual <= began:
            return seconds
        waits = (now[thread][1] - before[thread][1] for thread in now)
        waking = self.repetitions * WAKING_MS / 1e3
        return max(max(waits, default=0) / 1e9 - waking, 0.0)


def _this_thread() -> str:
    return str(threading.get_native_id())


class CoreWait:
    """How long this process's threads, ready to run, waited for a core.

    Linux counts it per thread (/proc/self/task/*/schedstat: ns on a core, ns waiting). It
    tells what a clock cannot tell from slow code: being pushed off a core, and a worker
    that wakes late because its core is taken. Elsewhere it is always 0.
    """

    def snapshot(self, threads: Optional[Collection[str]] = None) -> Snapshot:
        """Nanoseconds that each thread, of all or of `threads`, has run and waited."""
        found = {}
        for thread in self._alive() if threads is None else threads:
            try:
                with open(f"/proc/self/task/{thread}/schedstat", "rb", 0) as file:
                    ran, waited = file.read(64).split()[:2]
                found[thread] = int(ran), int(waited)
            except (
                OSError,
                ValueError,
            ):  # it has ended, or a kernel without these counts
                continue
        return found

    def ran(self, before: Snapshot) -> List[str]:
        """The threads that have run since `before`: those of a session, if only that ran
        meanwhile."""
        now = self.snapshot()
        return [t for t in now if t not in before or now[t][0] > before[t][0]]

    def threads(self) -> int:
        """How many there are."""
        return len(self._alive())

    @staticmethod
    def _alive() -> List[str]:
        try:
            return os.listdir("/proc/self/task")
        except OSError:
            return []
