"""The single verbs, one after the other, make the files that `compress` makes: they have
the same defaults."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch

from dpcompress.blueprint import candidates
from dpcompress.graph import trace
from dpcompress.models import load_model, read_origin, read_state_dict
from dpcompress.pipeline import RunFolder
from dpcompress.settings import Settings
from dpcompress.tables import LatencyTable

INPUT = (3, 8, 8)


@pytest.fixture
def table(net: str, tmp_path: Path) -> Path:
    """A latency table of `net` in which every merge pays."""
    blueprint = trace(load_model(net, None, {"classes": 10}), INPUT)
    rows = [
        {"start": start, "stop": stop, "latency_ms": 1.0 + 0.1 * (stop - start)}
        for start, stop in candidates(blueprint)
    ]
    header = {"blueprint": blueprint.digest, "input": "3x8x8", "e2e_ms": 3.3}
    LatencyTable(pd.DataFrame(rows), header).write(tmp_path / "T.csv")
    return tmp_path / "T.csv"


@pytest.mark.slow
def test_the_verbs_make_what_compress_makes(
    run: Callable[..., object], net: str, table: Path, tmp_path: Path
) -> None:
    torch.set_num_threads(1)
    model = (net, "--model-args", "classes=10")
    size, data = ("--input", "3x8x8"), ("--data", "digits")
    latency = ("--latency", table)

    def step(verb: str, *options: object) -> None:
        done = run(verb, *model, *options)
        assert done.code == 0, done.err

    step(
        "compress",
        *(*size, *data, *latency, "--budget", "70%", "--threads", 1, "--batch", 4),
        *("--pretrain-epochs", 20, "-o", tmp_path / "run"),
    )
    made = RunFolder(tmp_path / "run", Settings)
    original = ("--weights", made.path / "original.safetensors")
    plan = ("--plan", tmp_path / "plan.json")
    scored, tuned = tmp_path / "importance.csv", tmp_path / "finetuned.safetensors"
    merged, onnx = tmp_path / "merged.safetensors", tmp_path / "compressed.onnx"

    step("score", *original, *size, *data, *latency, "-o", scored)
    solved = run(
        *("solve", *latency, "--importance", scored, "--budget", "70%"),
        *("--frontier", tmp_path / "frontier.csv", "-o", tmp_path / "plan.json"),
    )
    assert solved.code == 0, solved.err
    step("finetune", *original, *plan, *data, "-o", tuned)
    step("merge", "--weights", tuned, *plan, *data, "-o", merged)
    step("export", "--weights", merged, *plan, *data, "--batch", 4, "-o", onnx)

    for name in ("importance.csv", "frontier.csv", "plan.json", "certificate.json"):
        assert (tmp_path / name).read_bytes() == (made.path / name).read_bytes(), name
    assert onnx.read_bytes() == made.compressed_onnx
    assert made.plan.merged
    for file in (tuned, merged):
        ours, theirs = read_state_dict(file), read_state_dict(made.path / file.name)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
        assert read_origin(file) == read_origin(made.path / file.name)
