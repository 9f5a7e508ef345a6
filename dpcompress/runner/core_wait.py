"""How long this process's threads waited for a core."""

from __future__ import annotations

import os
import threading
from typing import Collection, Dict, List, Optional, Tuple

ThreadTimes = Dict[str, Tuple[int, int]]  # thread id → nanoseconds it ran and waited


class CoreWait:
    """Reads how long threads that were ready to run waited for a core.

    Linux counts it per thread (/proc/self/task/*/schedstat: ns on a core, ns waiting). It
    tells what the duration of a sample cannot tell from slow code: that a thread was
    pushed off its core, or that a worker woke late because its core was taken. On
    other systems nothing is read, and waits count as 0.
    """

    def snapshot(self, threads: Optional[Collection[str]] = None) -> ThreadTimes:
        """Read the times of `threads`; of all threads if None."""
        found = {}
        for thread in self._alive() if threads is None else threads:
            try:
                with open(f"/proc/self/task/{thread}/schedstat", "rb", 0) as file:
                    ran, waited = file.read(64).split()[:2]
                found[thread] = int(ran), int(waited)
            except (OSError, ValueError):
                continue  # it has ended, or the kernel does not count
        return found

    def ran(self, before: ThreadTimes) -> List[str]:
        """The threads that have run since `before` was read."""
        now = self.snapshot()
        return [t for t in now if t not in before or now[t][0] > before[t][0]]

    def threads(self) -> int:
        """The number of threads of this process."""
        return len(self._alive())

    @staticmethod
    def _alive() -> List[str]:
        try:
            return os.listdir("/proc/self/task")
        except OSError:
            return []


def this_thread() -> str:
    """The calling thread's id."""
    return str(threading.get_native_id())
