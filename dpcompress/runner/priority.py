"""Runs this process ahead of the machine's other work."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import Iterator


@contextmanager
def real_time() -> Iterator[None]:
    """Move all threads of this process, and those it starts, to Linux's real-time class
    SCHED_RR, if the system allows it (to root, or with CAP_SYS_NICE).

    Other programs then get the cores that this process leaves idle, and the twentieth of
    the time that Linux keeps for them. Without it, even a sample that no thread of which
    waited can be slow, because its threads were moved between cores. The environment
    variable DPCOMPRESS_REAL_TIME=0 turns it off.
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
    """Move all threads in the class `old` to `new`; returns whether that was allowed."""
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
