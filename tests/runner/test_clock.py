import os
import subprocess
import sys
import time

import pytest

from dpcompress.runner.clock import CoreWait


def spin(seconds: float) -> None:
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


@pytest.mark.skipif(
    not os.path.exists("/proc/self/schedstat"), reason="the kernel does not count waits"
)
def test_sees_another_process_on_our_core() -> None:
    cores = os.sched_getaffinity(0)
    wait = CoreWait()
    os.sched_setaffinity(0, {min(cores)})
    busy = subprocess.Popen(
        [sys.executable, "-c", "print(1, flush=True)\nwhile True: pass"],
        stdout=subprocess.PIPE,
    )
    try:
        assert busy.stdout is not None
        busy.stdout.readline()
        before = wait.snapshot()
        spin(0.3)
        assert wait.longest(before) > 0.05
    finally:
        busy.kill()
        busy.communicate()
        os.sched_setaffinity(0, cores)
