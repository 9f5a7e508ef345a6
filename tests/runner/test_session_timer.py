import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from statistics import median

import numpy as np
import pytest

from dpcompress.runner import Session
from dpcompress.runner.core_wait import CoreWait
from dpcompress.runner.priority import real_time
from dpcompress.runner.session_timer import SessionTimer

pytestmark = pytest.mark.skipif(
    not os.path.exists("/proc/self/schedstat"), reason="the kernel does not count waits"
)


def spin(seconds: float) -> None:
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


class Spinning(Session):
    def run_many(self, n: int) -> float:
        spin(0.1 * n)
        return 0.1 * n

    def infer(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {}


class Sharing(Spinning):
    """Half of its work is a second thread's, unless that one does not come to it."""

    def __init__(self) -> None:
        self.worker, self.starved = ThreadPoolExecutor(1), False

    def run_many(self, n: int) -> float:
        if self.starved:
            spin(0.004 * n)
        else:
            self.worker.submit(spin, 0.002 * n).result()
        return 0.04 * n  # so that what it really waited is little


def test_a_thread_that_did_not_begin_waited_for_the_whole_sample() -> None:
    session = Sharing()
    timer = SessionTimer(session, 0.0, CoreWait(), cold=True)
    waited = sorted(timer.sample().waited for _ in range(20))
    assert waited[10] < 1
    session.starved = True
    # What the worker still had to tidy up may come late.
    assert [timer.sample().waited for _ in range(8)][5:] == [1, 1, 1]
    session.starved = False
    assert min(timer.sample().waited for _ in range(5)) < 1
    session.worker.shutdown()


@contextmanager
def one_core_with_another_process() -> Iterator[None]:
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    busy = subprocess.Popen(
        [sys.executable, "-c", "print(1, flush=True)\nwhile True: pass"],
        stdout=subprocess.PIPE,
    )
    try:
        assert busy.stdout is not None
        busy.stdout.readline()
        yield
    finally:
        busy.kill()
        busy.communicate()
        os.sched_setaffinity(0, cores)


def test_sees_another_process_on_our_core() -> None:
    timer = SessionTimer(Spinning(), 0.0, CoreWait(), cold=True)
    with one_core_with_another_process():
        assert max(timer.sample().waited for _ in range(3)) > 0.1


def test_goes_ahead_of_another_process_on_our_core(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("DPCOMPRESS_REAL_TIME")
    timer = SessionTimer(Spinning(), 0.0, CoreWait(), cold=True)
    with one_core_with_another_process(), real_time():
        if os.sched_getscheduler(0) != os.SCHED_RR:
            pytest.skip("the system grants no real-time class")
        assert median(timer.sample().waited for _ in range(5)) < 0.1


def test_all_threads_are_moved_and_moved_back(monkeypatch: pytest.MonkeyPatch) -> None:
    def classes() -> set[int]:
        return {os.sched_getscheduler(int(t)) for t in os.listdir("/proc/self/task")}

    monkeypatch.delenv("DPCOMPRESS_REAL_TIME")
    before = classes()
    with ThreadPoolExecutor(2) as pool:
        pool.submit(spin, 0.001).result()
        with pytest.raises(KeyboardInterrupt), real_time():
            granted = os.sched_getscheduler(0) == os.SCHED_RR
            assert classes() == ({os.SCHED_RR} if granted else before)
            pool.submit(spin, 0.001).result()
            raise KeyboardInterrupt
        assert classes() == before
        monkeypatch.setenv("DPCOMPRESS_REAL_TIME", "0")
        with real_time():
            assert classes() == before
