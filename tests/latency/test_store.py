import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from dpcompress.errors import BadInput
from dpcompress.latency import Store
from dpcompress.runner import Measurement

TIME = Measurement.of([1.0, 1.25, 1.5], disturbed=4)
ENGINE = {"engine": "onnxruntime", "engine_version": "1", "threads": "2"}


def test_returns_what_was_put_for_the_same_key_only(tmp_path: Path) -> None:
    path = tmp_path / "made" / "times.sqlite"
    with Store(path) as store:
        store.put("conv", ENGINE, 32, TIME)
    with Store(path) as store:
        assert store.get("conv", ENGINE, 32) == TIME
        assert store.get("conv", dict(reversed(ENGINE.items())), 32) == TIME
        assert store.get("conv", ENGINE, 1) is None
        assert store.get("conv2", ENGINE, 32) is None
        assert store.get("conv", {**ENGINE, "engine_version": "2"}, 32) is None


def test_a_later_measurement_replaces_the_earlier(tmp_path: Path) -> None:
    with Store(tmp_path / "times.sqlite") as store:
        store.put("conv", ENGINE, 32, TIME)
        store.put("conv", ENGINE, 32, Measurement.of([2.0]))
        found = store.get("conv", ENGINE, 32)
    assert found is not None and found.median_ms == 2.0


def test_a_killed_process_loses_nothing_that_was_put(tmp_path: Path) -> None:
    path = tmp_path / "times.sqlite"
    code = f"""
import os, signal
from dpcompress.latency import Store
from dpcompress.runner import Measurement
store = Store({str(path)!r})
for i in range(20):
    store.put(f"op{{i}}", {ENGINE!r}, 1, Measurement.of([1.0 + i]))
os.kill(os.getpid(), signal.SIGKILL)
"""
    killed = subprocess.run([sys.executable, "-c", code], check=False)
    assert killed.returncode == -signal.SIGKILL
    with Store(path) as store:
        for i in range(20):
            found = store.get(f"op{i}", ENGINE, 1)
            assert found is not None and found.median_ms == 1.0 + i


def test_refuses_what_is_no_store(tmp_path: Path) -> None:
    garbage = tmp_path / "garbage"
    garbage.write_bytes(b"no database, but long enough for a header" * 100)
    foreign = tmp_path / "foreign.sqlite"
    with sqlite3.connect(foreign) as other:
        other.execute("CREATE TABLE flowers (name)")
    for path in (garbage, foreign, tmp_path):
        with pytest.raises(BadInput, match=path.name):
            Store(path)
    assert garbage.stat().st_size == 4100
