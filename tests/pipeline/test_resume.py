"""A run that is killed again and again ends with the files of one that was not."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from dpcompress.tables import LatencyTable

NETWORK = """
import torch
from torch import nn

class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(8, 24, 1, bias=False), nn.BatchNorm2d(24), nn.ReLU(),
            nn.Conv2d(24, 24, 3, padding=1, groups=24, bias=False),
            nn.BatchNorm2d(24), nn.ReLU(),
            nn.Conv2d(24, 8, 1, bias=False), nn.BatchNorm2d(8),
        )
    def forward(self, x):
        return x + self.body(x)

def network():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
        Block(), nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.Dropout(0.1),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10),
    )
"""
RUN = """
import sys
from pathlib import Path
import torch
from dpcompress.pipeline import Scoring, Settings, compress
from dpcompress.runner import Target
from dpcompress.training import Recipe

torch.set_num_threads(1)
network, folder, latency, budget = sys.argv[1:]
settings = Settings(
    model=f"{network}:network", input=(3, 16, 16), data="digits",
    target=Target(threads=1, batch=4),
    budget=budget,
    latency=None if latency == "none" else latency,
    pretrain=Recipe(epochs=6, batch_size=32, lr=0.1),
    scoring=Scoring(recipe=Recipe(steps=3, batch_size=32, lr=0.02)),
    finetune=Recipe(epochs=4, batch_size=32, lr=0.02, distill_weight=0.5),
)
compress(settings, Path(folder))
"""
MEASURED = {"result.json", "steps.json", "run.json", "measurements.sqlite"}
"""Files that hold times, or digests of them."""


class Runner:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "nets.py").write_text(NETWORK)
        (folder / "go.py").write_text(RUN)

    def start(
        self, run: str, latency: object, budget: str = "90%"
    ) -> subprocess.Popen[bytes]:
        command = [sys.executable, self.folder / "go.py", self.folder / "nets.py"]
        arguments = [self.folder / run, latency, budget]
        with open(self.folder / "log", "ab") as log:
            return subprocess.Popen([*command, *map(str, arguments)], stderr=log)

    def finish(self, run: str, latency: object, budget: str = "90%") -> int:
        return self.start(run, latency, budget).wait(timeout=300)

    def kill_when(
        self,
        ready: Callable[[Path], bool],
        latency: object,
        run: str = "killed",
        budget: str = "90%",
    ) -> None:
        process = self.start(run, latency, budget)
        deadline = time.monotonic() + 240
        while not ready(self.folder / run):
            assert process.poll() is None, (self.folder / "log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()


def lines(path: Path) -> int:
    return len(path.read_bytes().splitlines()) if path.exists() else 0


MOMENTS: list[Callable[[Path], bool]] = [
    lambda run: (run / "original.checkpoint").exists(),
    lambda run: (run / "original.safetensors").exists(),
    lambda run: lines(run / "importance.jsonl") >= 2,
    lambda run: lines(run / "importance.jsonl") >= 7,
    lambda run: (run / "plan.json").exists(),
    lambda run: (run / "finetune.checkpoint").exists(),
    lambda run: (run / "certificate.json").exists(),
    lambda run: (run / "compressed.onnx").exists(),
]


def keeps_what_it_measured(runner: Runner) -> None:
    """With its measurements fixed, the closed loop finds the same plan again."""
    made = [runner.folder / "table" / name for name in ("plan.json", "closed_loop.json")]
    found = []
    for _ in range(2):
        runner.kill_when(lambda run: made[0].exists(), "none", "table", "300%")
        found.append([path.read_bytes() for path in made])
        for path in made:
            path.unlink()
    assert found[0] == found[1]
    plan, loop = map(json.loads, found[0])
    assert plan["measured_ms"] == loop["measured_ms"] <= loop["budget_ms"]


@pytest.mark.slow
def test_killed_runs_end_with_the_same_bytes(tmp_path: Path):
    runner = Runner(tmp_path)
    # The impossible budget ends the first run after its tables.
    assert runner.finish("table", "none", "50x") != 0
    table = tmp_path / "latency.csv"
    measured = LatencyTable.read(tmp_path / "table" / "latency.csv")
    times, spans = measured.frame["latency_ms"], measured.frame
    # So small a network may have nothing to gain: let every merge pay.
    single = spans["stop"] - spans["start"] == 1
    cheap = times.where(single, times.min() / 2)
    all_layers = {"fixed_ms": "0", "e2e_ms": str(measured.single_layers_ms)}
    header = {**measured.header, **all_layers}
    LatencyTable(spans.assign(latency_ms=cheap), header).write(table)
    assert "No plan was measured to take" in (tmp_path / "log").read_text()
    keeps_what_it_measured(runner)

    assert runner.finish("whole", table) == 0, (tmp_path / "log").read_text()
    for ready in MOMENTS:
        runner.kill_when(ready, table)
    assert runner.finish("killed", table) == 0, (tmp_path / "log").read_text()

    whole, killed = tmp_path / "whole", tmp_path / "killed"
    names = {path.name for path in whole.iterdir()}
    assert {path.name for path in killed.iterdir() if path.name[0] != "."} == names
    assert {"compressed.onnx", "plan.json", "certificate.json"} <= names
    differing = [
        name
        for name in sorted(names - MEASURED)
        if (whole / name).read_bytes() != (killed / name).read_bytes()
    ]
    assert differing == []
    result = json.loads((killed / "result.json").read_text())
    assert result["compressed"]["layers"] < result["original"]["layers"]

    # A finished run does nothing again.
    before = (killed / "result.json").stat().st_mtime_ns
    assert runner.finish("killed", table) == 0
    assert (killed / "result.json").stat().st_mtime_ns == before
