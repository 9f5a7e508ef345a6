"""Being measured ahead of the machine's other work. Valid on Python 3.8."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import Iterator


@contextmanager
def real_time() -> Iterator[None]:
    """Linux's real-time class for this process's threads, old and new, where the system
    grants it (to root, or with CAP_SYS_NICE).

    Others then get the cores that this process leaves idle, and the twentieth that Linux
    keeps for them. Without it, a window that lost no core can still be slow: its workers
    had to move. DPCOMPRESS_REAL_TIME=0 forgoes it.
    """
    wanted = os.environ.get("DPCOMPRESS_REAL_TIME") != "0"
    if not wanted or not _move("SCHED_OTHER", "SCHED_RR"):
        yield
        return
    try:
        yield
    finally:
        _move("SCHED_RR", "SCHED_OTHER")


def _move(old: str, new: str) -> bool:
    """Moves the threads that are in one class to another; whether that was granted."""
    if not hasattr(os, "SCHED_RR") or os.sched_getscheduler(0) != getattr(os, old):
        return False
    policy = getattr(os, new)
    lowest = os.sched_param(os.sched_get_priority_min(policy))
    try:
        for thread in map(int, os.listdir("/proc/self/task")):
            try:
                if os.sched_getscheduler(thread) == getattr(os, old):
                    os.sched_setscheduler(thread, policy, lowest)
            except ProcessLookupError:  # it has just ended
                continue
    except OSError:
        return False
    return True
