"""Whether other processes got in the way. Valid on Python 3.8."""

from __future__ import annotations

import os
from typing import Dict


class CoreWait:
    """Seconds that this process's threads, ready to run, waited for a core.

    Linux counts it per thread (/proc/self/task/*/schedstat, second number, ns). It sees
    what a clock cannot tell from slow code: being pushed off a core, and a worker that
    wakes late because its core is taken. Elsewhere it is always 0.
    """

    def __init__(self) -> None:
        self._files: Dict[str, int] = {}

    def find_threads(self) -> None:
        """Look for threads that were started or ended since; call after loading."""
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

    def seconds(self) -> float:
        """The sum over all threads so far."""
        total = 0
        for file in self._files.values():
            try:
                total += int(os.pread(file, 64, 0).split()[1])
            except (OSError, IndexError):
                continue
        return total / 1e9

    def close(self) -> None:
        for file in self._files.values():
            os.close(file)
        self._files.clear()
