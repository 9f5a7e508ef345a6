import signal
import sqlite3
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dpcompress.errors import BadInput
from dpcompress.latency import Store
from dpcompress.latency.store import StoreLog, default_path
from dpcompress.runner import Measurement, Ratio

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


def test_ratios_stand_apart_from_times(tmp_path: Path) -> None:
    found = Ratio(0.5, 0.4, 0.6, 0.1)
    with Store(tmp_path / "times.sqlite") as store:
        store.put_ratio("plan", ENGINE, 32, found)
    with Store(tmp_path / "times.sqlite") as store:
        assert store.get_ratio("plan", ENGINE, 32) == found
        assert store.get_ratio("plan", ENGINE, 1) is None
        assert store.get("plan", ENGINE, 32) is None and len(store) == 0


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


def test_export_and_import_move_everything(tmp_path: Path) -> None:
    lines = tmp_path / "all.jsonl"
    with Store(tmp_path / "a.sqlite") as store:
        for i in range(3):
            store.put(f"conv{i}", ENGINE, i, Measurement.of([1.0 + i]))
        assert store.export(lines) == 3
    with Store(tmp_path / "b.sqlite") as store:
        assert store.include(lines) == 3
        assert store.include(lines) == 0
        found = store.get("conv2", ENGINE, 2)
        assert found is not None and found.median_ms == 3.0
        assert {row["subject"] for row in store.rows()} == {"conv0", "conv1", "conv2"}


def test_import_keeps_the_later_measurement(tmp_path: Path) -> None:
    lines = tmp_path / "all.jsonl"
    with Store(tmp_path / "a.sqlite") as store:
        store.put("conv", ENGINE, 1, Measurement.of([1.0]))
        store.export(lines)
        text = lines.read_text()
        year = str(datetime.now(UTC).year)
        for date, wanted in (("1999", 1.0), ("2999", 5.0)):
            other = text.replace(f'"{year}-', f'"{date}-').replace("1.0", "5.0")
            lines.write_text(other)
            store.include(lines)
            found = store.get("conv", ENGINE, 1)
            assert found is not None and found.median_ms == wanted


@pytest.mark.parametrize(
    "damage", ["{", "7", '{"subject": "x"}', '{"format": "other"}', "\x00"]
)
def test_a_damaged_import_changes_nothing_and_names_the_line(
    tmp_path: Path, damage: str
) -> None:
    lines = tmp_path / "all.jsonl"
    with Store() as store:
        store.put("conv", ENGINE, 1, TIME)
        store.export(lines)
    lines.write_text(lines.read_text() + damage + "\n")
    with Store() as store:
        with pytest.raises(BadInput, match=r"all\.jsonl, line 3"):
            store.include(lines)
        assert len(store) == 0


def test_a_store_that_is_damaged_inside_is_told(tmp_path: Path) -> None:
    path = tmp_path / "times.sqlite"
    with Store(path) as store:
        for i in range(500):
            store.put(f"op{i}", ENGINE, 1, TIME)
    data = bytearray(path.read_bytes())
    data[4096:] = b"\xa5" * (len(data) - 4096)
    path.write_bytes(data)
    with pytest.raises(BadInput, match=r"times\.sqlite"), Store(path) as store:
        list(store.rows())


def test_a_full_disk_is_told_and_keeps_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "times.sqlite"
    with Store(path) as store:
        store.put("op", ENGINE, 1, TIME)
        pages = store._database.execute("PRAGMA page_count").fetchone()[0]
        store._database.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(BadInput, match="full.*Free some space"):
            for i in range(500):
                store.put(f"op{i}", ENGINE, 1, TIME)
    with Store(path) as store:
        assert store.get("op", ENGINE, 1) == TIME


def test_the_default_store_is_the_users(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("DPCOMPRESS_STORE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(sys, "platform", "linux")
    assert default_path() == tmp_path / "dpcompress" / "measurements.sqlite"
    monkeypatch.setenv("DPCOMPRESS_STORE", str(tmp_path / "mine"))
    assert default_path() == tmp_path / "mine"


def test_samples_stay_until_their_measurement_is_finished(tmp_path: Path) -> None:
    path = tmp_path / "times.sqlite"
    with Store(path) as store:
        log = StoreLog(store, ENGINE, 1)
        log.add_samples({"conv": 1.0, "pool": 3.0})
        log.add_samples({"conv": 1.5})
        log.add_samples({"conv": 1.25})
    with Store(path) as store:
        assert store.samples("conv", ENGINE, 1) == [1.0, 1.5, 1.25]
        assert store.samples("conv", ENGINE, 2) == []
        store.put("conv", ENGINE, 1, TIME)
        assert store.samples("conv", ENGINE, 1) == []
        assert store.samples("pool", ENGINE, 1) == [3.0]
