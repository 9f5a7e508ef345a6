"""The store and the packed runner on the command line."""

import subprocess
import sys

from dpcompress.latency import Store
from dpcompress.runner import Measurement

ENGINE = {"engine": "onnxruntime", "engine_version": "1", "threads": "2"}


def test_list_export_import(run, tmp_path):
    first, second = tmp_path / "a.sqlite", tmp_path / "b.sqlite"
    lines = tmp_path / "all.jsonl"
    with Store(first) as store:
        store.put("conv", ENGINE, 32, Measurement.of([1.0]))
    assert run("store", "export", lines, "--store", first).code == 0
    done = run("store", "import", lines, "--store", second, "--json")
    assert done.json["measurements"] == 1
    (group,) = run("store", "list", "--store", second, "--json").json["groups"]
    assert group["engine"] == "onnxruntime"
    assert (group["batch"], group["measurements"]) == (32, 1)
    assert "onnxruntime" in run("store", "list", "--store", second).out


def test_the_environment_names_the_store(run, tmp_path, monkeypatch):
    monkeypatch.setenv("DPCOMPRESS_STORE", str(tmp_path / "mine.sqlite"))
    failed = run("store", "list")
    assert failed.code == 2 and "mine.sqlite" in failed.err


def test_wrong_wishes_and_foreign_files(run, tmp_path):
    path, lines = tmp_path / "a.sqlite", tmp_path / "x.jsonl"
    Store(path).close()
    assert run("store", "list", lines, "--store", path).code == 2
    assert run("store", "export", "--store", path).code == 2
    lines.write_text("roses\n")
    failed = run("store", "import", lines, "--store", path)
    assert failed.code == 4 and "x.jsonl, line 1" in failed.err
    path.write_text("roses" * 1000)
    failed = run("store", "list", "--store", path)
    assert failed.code == 4 and "a.sqlite" in failed.err


def test_the_runner_is_one_file(run, tmp_path):
    packed = tmp_path / "runner.pyz"
    done = run("runner", "--pyz", packed, "--json")
    assert done.json["bytes"] == packed.stat().st_size < 100_000
    help = subprocess.run([sys.executable, packed, "--help"], capture_output=True)
    assert help.returncode == 0 and b"bundle" in help.stdout
