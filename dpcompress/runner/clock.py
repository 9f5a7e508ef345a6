"""One session under the clock, and who got in its way. Valid on Python 3.8."""

from __future__ import annotations

import os
import time
from typing import Dict, NamedTuple

from dpcompress.runner.engine import Session

WAKING = 0.03
"""Share of a window that the waking of an engine's own workers may take."""


class Window(NamedTuple):
    """Milliseconds per inference; `waited`: the share of the window that a thread of
    this process, ready to run, waited for a core."""

    ms: float
    waited: float


class Clock:
    """Times windows of at least `window_ms`; warmed up when made."""

    def __init__(self, session: Session, window_ms: float, wait: CoreWait) -> None:
        self._session, self._wait, self._window_ms = session, wait, window_ms
        self._repetitions = 1
        self._least_waited = WAKING
        self._warm_up()

    def _warm_up(self) -> None:
        """Run until two windows agree within 2 %, or for 12 windows or half a second."""
        began = time.perf_counter()
        self._session.run_many(1)
        self._wait.find_threads()
        last, fastest = 0.0, float("inf")
        for _ in range(12):
            now = self.window().ms
            fastest = min(fastest, now)
            self._repetitions = max(1, round(self._window_ms / fastest))
            late = time.perf_counter() - began > 0.5
            if late or abs(now - last) <= 0.02 * now:
                break
            last = now

    def window(self) -> Window:
        """Time one window, after an inference that brings back to the caches what
        others pushed out.

        Waking its own workers is part of an engine's work. So only what threads wait
        beyond this session's least share, or beyond `WAKING`, counts as a disturbance.
        """
        self._session.run_many(1)
        before = self._wait.snapshot()
        seconds = max(self._session.run_many(self._repetitions), 1e-9)
        share = min(self._wait.longest(before) / seconds, 1.0)
        self._least_waited = min(self._least_waited, share)
        ms = seconds * 1e3 / self._repetitions
        return Window(ms, share - self._least_waited)


class CoreWait:
    """How long this process's threads, ready to run, waited for a core.

    Linux counts it per thread (/proc/self/task/*/schedstat, second number, ns). It
    tells what a clock cannot tell from slow code: being pushed off a core, and a worker
    that wakes late because its core is taken. Elsewhere it is always 0.
    """

    def __init__(self) -> None:
        self._files: Dict[str, int] = {}

    def find_threads(self) -> None:
        """Look for threads that were started or ended since the last time."""
        try:
            alive = set(os.listdir("/proc/self/task"))
        except OSError:
            return
        for thread in self._files.keys() - alive:
            os.close(self._files.pop(thread))
        for thread in alive - self._files.keys():
            try:
                path = f"/proc/self/task/{thread}/schedstat"
                self._files[thread] = os.open(path, os.O_RDONLY)
            except OSError:  # ended meanwhile, or a kernel without these counts
                continue

    def snapshot(self) -> Dict[str, int]:
        """Nanoseconds that each thread has waited so far."""
        found = {}
        for thread, file in self._files.items():
            try:
                found[thread] = int(os.pread(file, 64, 0).split()[1])
            except (OSError, IndexError):  # the thread has ended
                continue
        return found

    def longest(self, before: Dict[str, int]) -> float:
        """Seconds that the thread that waited longest has waited since `before`."""
        now = self.snapshot()
        waits = (now[thread] - before[thread] for thread in now.keys() & before.keys())
        return max(waits, default=0) / 1e9

    def close(self) -> None:
        for file in self._files.values():
            os.close(file)
        self._files.clear()
