"""Measuring elsewhere: bundle, runner, results, table."""

import json
import os
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import onnx
import pytest

from dpcompress.errors import BadInput
from dpcompress.latency import pack_runner, profile, table_from_results, write_bundle
from dpcompress.runner import Measurement, OpTiming, Target
from dpcompress.runner.__main__ import time_bundle
from dpcompress.runner.bundle import Bundle
from dpcompress.runner.results import ResultsLog, read_results
from tests.latency.test_profile import chain, network
from tests.runner.tensorrt.conftest import host

QUICK = OpTiming(min_samples=5, max_samples=5, max_disturbed=0)
BLUEPRINT = chain(2, 8)

# Stands for a virtual environment with only numpy and onnxruntime.
ONLY_NUMPY_AND_AN_ENGINE = """
import importlib.abc, runpy, sys

class Block(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        top = name.split(".")[0]
        here = name.startswith("dpcompress.") and name.split(".")[1]
        known = top in sys.stdlib_module_names or top in sys.builtin_module_names
        if here and here not in ("errors", "runner", "version"):
            raise ImportError(f"{name} is not part of the runner")
        if not known and top not in ("numpy", "onnxruntime", "dpcompress", "__main__"):
            raise ImportError(f"{name} is not installed here")

sys.meta_path.insert(0, Block())
file, *sys.argv[1:] = sys.argv[1:]
runpy.run_path(file, run_name="__main__")
"""


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    path = tmp_path / "bundle.zip"
    write_bundle(BLUEPRINT, path, original=network(BLUEPRINT, 2), target=Target(batch=2))
    return path


def test_a_bundle_gives_the_rows_that_profile_gives(bundle: Path, tmp_path: Path) -> None:
    results = tmp_path / "results.jsonl"
    count = time_bundle(Bundle(bundle), str(results), Target(threads=1), timing=QUICK)
    assert count == len(Bundle(bundle).entries)
    there = table_from_results(BLUEPRINT, results)
    here = profile(
        BLUEPRINT,
        original=network(BLUEPRINT, 2),
        target=Target(threads=1, batch=2),
        timing=QUICK,
    )
    same = ["start", "stop", "op", "signature", "samples"]
    assert there.frame[same].equals(here.frame[same])
    assert there.header.keys() == here.header.keys()
    changing = {"date", "e2e_ms", "e2e_spread_ms", "single_layers_ms", "fixed_ms"}
    for key in here.header.keys() - changing:
        assert there.header[key] == here.header[key]


def test_same_work_same_bytes_and_small(bundle: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.zip"
    write_bundle(BLUEPRINT, again, original=network(BLUEPRINT, 2), target=Target(batch=2))
    assert again.read_bytes() == bundle.read_bytes()
    wide = tmp_path / "wide.zip"
    write_bundle(chain(2, 256), wide, original=b"", target=Target())
    with zipfile.ZipFile(wide) as opened:
        weights = sum(info.file_size for info in opened.infolist())
    assert weights > 10e6 and wide.stat().st_size < weights / 20


def test_the_packed_runner_needs_numpy_and_an_engine_only(
    bundle: Path, tmp_path: Path
) -> None:
    packed, results = tmp_path / "runner.pyz", tmp_path / "results.jsonl"
    pack_runner(packed)
    with zipfile.ZipFile(packed) as opened:
        names = {name for name in opened.namelist() if name.endswith(".py")}
    assert {"__main__.py", "dpcompress/errors.py"} <= names
    assert not any("/latency/" in name or "/files" in name for name in names)

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", ONLY_NUMPY_AND_AN_ENGINE, packed, *arguments]
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        return subprocess.run(
            [str(part) for part in command],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=environment,
        )

    done = run(bundle, "-o", results, "--threads", 1)
    assert done.returncode == 0, done.stderr
    table = table_from_results(BLUEPRINT, results)
    assert set(zip(table.frame["start"], table.frame["stop"], strict=True)) == {
        *((0, 1), (0, 2), (1, 2)),
    }
    assert (table.frame["samples"] >= 5).all()
    done = run(bundle, "-o", results, "--threads", 1)
    assert done.stdout.endswith(": 0 graphs timed\n")
    refused = run(bundle, "-o", results, "--engine", "openvino")
    assert refused.returncode == 5 and "pip install" in refused.stderr
    refused = run(results, "-o", tmp_path / "x.jsonl")
    assert refused.returncode == 4 and "results.jsonl" in refused.stderr


def test_goes_on_after_a_torn_line(bundle: Path, tmp_path: Path) -> None:
    results = tmp_path / "results.jsonl"
    opened = Bundle(bundle)
    time_bundle(opened, str(results), Target(threads=1), timing=QUICK)
    whole = results.read_text().splitlines(keepends=True)
    cut = next(i for i, line in enumerate(whole) if "median_ms" in line) + 3
    results.write_text("".join(whole[:cut]) + whole[cut][:30])
    with pytest.raises(BadInput, match="lacks"):
        table_from_results(BLUEPRINT, results)
    count = time_bundle(opened, str(results), Target(threads=1), timing=QUICK)
    assert count == len(opened.entries) - 3
    assert results.read_text().splitlines(keepends=True)[:cut] == whole[:cut]
    assert read_results(results).times.keys() == {e.subject for e in opened.entries}


def test_a_header_that_was_cut_off_is_written_again(bundle: Path, tmp_path: Path) -> None:
    results = tmp_path / "results.jsonl"
    results.write_text('{"format": "dpcomp')
    time_bundle(Bundle(bundle), str(results), Target(threads=1), timing=QUICK)
    assert len(table_from_results(BLUEPRINT, results).frame) == 3


def test_results_of_something_else_are_refused(bundle: Path, tmp_path: Path) -> None:
    results = tmp_path / "results.jsonl"
    time_bundle(Bundle(bundle), str(results), Target(threads=1), timing=QUICK)
    before = results.read_bytes()
    with pytest.raises(BadInput, match="engine differ"):
        time_bundle(Bundle(bundle), str(results), Target(threads=2), timing=QUICK)
    with pytest.raises(BadInput, match="another network"):
        table_from_results(chain(3, 8), results)
    assert results.read_bytes() == before


def test_damaged_results_name_the_line(bundle: Path, tmp_path: Path) -> None:
    results = tmp_path / "results.jsonl"
    time_bundle(Bundle(bundle), str(results), Target(threads=1), timing=QUICK)
    lines = results.read_text().splitlines()
    some = ("{", "[1]", '{"subject": "x"}', '{"median_ms": 1}', '{"windows_ms": 1}')
    for damaged in some:
        results.write_text("\n".join([*lines[:2], damaged, *lines[3:]]) + "\n")
        with pytest.raises(BadInput, match=r"results\.jsonl, line 3"):
            table_from_results(BLUEPRINT, results)
    finished = next(line for line in lines if "median_ms" in line)
    broken = json.loads(finished) | {"median_ms": -1}
    results.write_text("\n".join([*lines[:2], json.dumps(broken), *lines[3:]]) + "\n")
    with pytest.raises(BadInput, match="line 3"):
        table_from_results(BLUEPRINT, results)
    results.write_text('{"roses": "red"}\n')
    with pytest.raises(BadInput, match="line 1"):
        table_from_results(BLUEPRINT, results)
    with pytest.raises(BadInput, match="cannot be read"):
        table_from_results(BLUEPRINT, tmp_path / "nowhere.jsonl")


def test_damaged_bundles_are_refused(bundle: Path, tmp_path: Path) -> None:
    whole = bundle.read_bytes()
    cut = tmp_path / "cut.zip"
    cut.write_bytes(whole[: len(whole) // 2])
    foreign = tmp_path / "foreign.zip"
    with zipfile.ZipFile(foreign, "w") as other:
        other.writestr("manifest.json", '{"format": "holiday pictures"}')
    empty = tmp_path / "empty.zip"
    with zipfile.ZipFile(empty, "w") as other:
        other.writestr("readme", "")
    for path in (cut, foreign, empty, tmp_path / "nowhere.zip"):
        with pytest.raises(BadInput, match=path.name):
            Bundle(path)
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 255
    bundle.write_bytes(flipped)
    with pytest.raises(BadInput, match="bundle.zip"):
        opened = Bundle(bundle)
        for entry in opened.entries:
            opened.graph(entry.file)


def test_a_rejected_layer_is_named(bundle: Path, tmp_path: Path) -> None:
    results = tmp_path / "results.jsonl"
    time_bundle(Bundle(bundle), str(results), Target(threads=1), timing=QUICK)
    lines = [json.loads(line) for line in results.read_text().splitlines()]
    table = table_from_results(BLUEPRINT, results)
    long = table.frame.query("start == 0 and stop == 2")["signature"].item()
    single = table.frame.query("start == 1 and stop == 2")["signature"].item()

    def without(subject: str) -> None:
        told = {"subject": subject, "rejected": "Too large.", "remedy": "Shrink it."}
        kept = [told if line.get("subject") == subject else line for line in lines]
        results.write_text("".join(json.dumps(line) + "\n" for line in kept))

    without(long)
    assert len(table_from_results(BLUEPRINT, results).frame) == len(table.frame) - 1
    frame = next(s for line in lines if (s := line.get("subject", ""))[:5] == "frame")
    for subject, match in ((single, "Layer 2 .*Too large"), (frame, "Too large")):
        without(subject)
        with pytest.raises(BadInput, match=match):
            table_from_results(BLUEPRINT, results)


def test_a_disk_that_fills_up_is_told_and_the_rest_is_kept(tmp_path: Path) -> None:
    """A limit on the size of files fails as a full disk does, and needs no small disk."""
    resource = pytest.importorskip("resource")
    path, time = tmp_path / "results.jsonl", Measurement.of([1.0])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with ResultsLog(path, {"bundle": "x"}) as log:
        resource.setrlimit(resource.RLIMIT_FSIZE, (400, hard))
        try:
            with pytest.raises(BadInput, match=r"results\.jsonl cannot be written"):
                for i in range(10):
                    log.finish(f"op{i}", time)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "op0" in read_results(path).times
    with ResultsLog(path, {"bundle": "x"}) as log:
        log.finish("last", time)
    assert {"op0", "last"} <= read_results(path).times.keys()


@pytest.mark.filterwarnings("ignore:GPU clocks")
def test_no_copies_where_the_engine_may_fuse_them(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the make-believe GPU of tests/runner/tensorrt/fake.py."""
    monkeypatch.setenv("DPCOMPRESS_TIMING_CACHE", str(tmp_path / "timing"))
    host("10.16.1.11", monkeypatch)
    results = str(tmp_path / "results.jsonl")
    with pytest.raises(BadInput, match="tensorrt may fuse.*--engine tensorrt --bundle"):
        time_bundle(Bundle(bundle), results, Target("tensorrt"), timing=QUICK)
    single, original = tmp_path / "single.zip", network(BLUEPRINT, 2)
    target = Target("tensorrt:cuda_graph=2", batch=2)
    write_bundle(BLUEPRINT, single, original=original, target=target)

    def outputs(path: Path) -> list[int]:
        opened = Bundle(path)
        ops = [e.file for e in opened.entries if " > " in e.subject]
        return [len(onnx.load_from_string(opened.graph(f)).graph.output) for f in ops]

    assert {*outputs(single)} == {1} and max(outputs(bundle)) > 1
    time_bundle(Bundle(single), results, target, timing=QUICK)
    there = table_from_results(BLUEPRINT, results)
    here = profile(BLUEPRINT, original=original, target=target, timing=QUICK)
    assert there.header["method"] == here.header["method"] == "framed-4, most copies 1"
    assert there.header.keys() == here.header.keys()


@pytest.mark.filterwarnings("ignore:GPU clocks")
def test_fp16_goes_into_the_graphs_and_notes_into_the_header(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the make-believe GPU of tests/runner/tensorrt/fake.py."""
    monkeypatch.setenv("DPCOMPRESS_TIMING_CACHE", str(tmp_path / "timing"))
    host("10.16.1.11", monkeypatch)
    bundle, results = tmp_path / "half.zip", tmp_path / "results.jsonl"
    original = network(BLUEPRINT, 2)
    target = Target("tensorrt:cuda_graph=2", precision="fp16", batch=2)
    write_bundle(BLUEPRINT, bundle, original=original, target=target)
    opened = Bundle(bundle)
    assert opened.about["graphs"] == "float16"
    full = replace(target, precision="fp32")
    with pytest.raises(BadInput, match="written in fp16, not fp32"):
        time_bundle(opened, str(tmp_path / "full.jsonl"), full, timing=QUICK)
    time_bundle(opened, str(results), target, timing=QUICK)
    there = table_from_results(BLUEPRINT, results)
    assert there.header["engine"] == target.engine
    assert there.header["precision"] == "fp16"
    assert there.header["sm_clock_mhz"] == there.header["clocks"] == "unknown"
    here = profile(BLUEPRINT, original=original, target=target, timing=QUICK)
    assert here.header.keys() == there.header.keys()
    assert here.frame["op"].equals(there.frame["op"])
