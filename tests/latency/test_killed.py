"""A real table whose process is killed in the middle."""

import signal
import sqlite3
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path

import pytest

from dpcompress.latency import Store, profile
from dpcompress.runner import Measurement, Target, measure
from tests.latency.test_profile import chain, network

PROFILE = import_module("dpcompress.latency.profile")

BLUEPRINT = chain(4, 8)
CODE = """
import sys
from dpcompress.latency import Store, profile
from dpcompress.runner import OpTiming, Target
from tests.latency.test_killed import BLUEPRINT, network
slow = OpTiming(precision=0, min_samples=10**6, max_samples=10**6, max_seconds=1e6)
profile(BLUEPRINT, original=network(BLUEPRINT, 1), target=Target(threads=1),
        timing=slow, store=Store(sys.argv[1]))
"""


def samples(path: Path) -> int:
    try:
        with sqlite3.connect(path) as database:
            return int(database.execute("SELECT count(*) FROM windows").fetchone()[0])
    except sqlite3.Error:  # not made yet
        return 0


@pytest.mark.slow
def test_sigkill_loses_at_most_the_round_in_flight(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "times.sqlite"
    process = subprocess.Popen([sys.executable, "-c", CODE, str(path)])
    end = time.monotonic() + 60
    while samples(path) < 400 and time.monotonic() < end:
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    kept = samples(path)
    assert kept >= 400

    earlier: dict[str, int] = {}
    times: dict[str, Measurement] = {}

    def watched(subjects, timing, log, **options):  # type: ignore[no-untyped-def]
        earlier.update({s.key: len(log.samples(s.key)) for s in subjects})
        times.update(measure(subjects, timing, log, **options))
        return times

    monkeypatch.setattr(PROFILE, "measure", watched)
    with Store(path) as store:
        profile(
            BLUEPRINT,
            original=network(BLUEPRINT, 1),
            target=Target(threads=1),
            store=store,
        )
    assert sum(earlier.values()) == kept
    # All subjects take part in most rounds: each had its share of what was kept.
    assert min(earlier.values()) > 0
    assert all(times[key].samples >= count for key, count in earlier.items())
    assert samples(path) == 0
