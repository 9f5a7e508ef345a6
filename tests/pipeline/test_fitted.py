"""Runs without training, and runs that train the merged network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from dpcompress.blueprint import candidates
from dpcompress.graph import trace
from dpcompress.models import load_model, read_state_dict, save_weights
from dpcompress.pipeline import Result, Scoring, Settings, compress
from dpcompress.runner import Target
from dpcompress.tables import ImportanceTable, LatencyTable
from dpcompress.training import Recipe, finetune, load_data

NETWORK = """
from torch import nn

def layer(a, b, stride=1):
    conv = nn.Conv2d(a, b, 3, stride, padding=1, bias=False)
    return conv, nn.BatchNorm2d(b), nn.ReLU()

def network():
    return nn.Sequential(
        *layer(3, 8), *layer(8, 8), *layer(8, 8), *layer(8, 12, stride=2),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(48, 10),
    )
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a trained network and a table in which every merge pays."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "net.py").write_text(NETWORK)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = load_model(f"{folder}/net.py:network")
    data = load_data("digits", input_size=(3, 8, 8))
    finetune(model, data, Recipe(epochs=6, batch_size=32, lr=0.1), validate=False)
    save_weights(folder / "trained.safetensors", model.state_dict())
    blueprint = trace(model, (3, 8, 8))
    rows = [
        {"start": start, "stop": stop, "latency_ms": 1.0 + 0.1 * (stop - start)}
        for start, stop in candidates(blueprint)
    ]
    header = {"blueprint": blueprint.digest, "input": "3x8x8", "e2e_ms": 4.4}
    LatencyTable(pd.DataFrame(rows), header).write(folder / "latency.csv")
    return folder


def run(trained: Path, folder: Path, **options: Any) -> Result:
    settings = Settings(
        model=f"{trained}/net.py:network",
        weights=f"{trained}/trained.safetensors",
        latency=f"{trained}/latency.csv",
        input=(3, 8, 8),
        data="digits",
        target=Target(threads=1),
        budget="80%",
        scoring=Scoring(estimator="fit", images=200),
        images=400,
        finetune=Recipe(epochs=3, batch_size=32, lr=0.02),
        **options,
    )
    return compress(settings, folder)


@pytest.mark.slow
def test_fitted_and_trained_on(trained: Path, tmp_path: Path) -> None:
    fitted = run(trained, tmp_path / "none", train="none")
    further = run(trained, tmp_path / "merged", form="merged")
    exact = run(trained, tmp_path / "exact")
    chance = 0.1
    assert fitted.compressed.layers == 3 and fitted.original.layers == 4
    assert fitted.compressed.accuracy > 5 * chance
    assert further.compressed.accuracy >= fitted.compressed.accuracy
    assert len({r.compressed.parameters for r in (fitted, further, exact)}) == 1

    for name in ("none", "merged"):
        folder = tmp_path / name
        report = json.loads((folder / "fit.json").read_text())
        assert report["kind"] == "fitted" and 0 < report["spans"][0]["residual"] < 1
        assert not (folder / "certificate.json").exists()  # no proof of what is not exact
    assert json.loads((tmp_path / "exact/certificate.json").read_text())["holds"]
    assert not (tmp_path / "none/finetuned.safetensors").exists()
    start, end = (
        read_state_dict(tmp_path / "merged" / f"{name}.safetensors")
        for name in ("fitted", "merged")
    )
    assert start.keys() == end.keys()
    assert any(not torch.equal(start[key], end[key]) for key in start)
    table = ImportanceTable.read(tmp_path / "none/importance.csv")
    assert json.loads(table.header["estimator"])["name"] == "fit"

    # A finished run does nothing again; one that lost its weights makes the same.
    result = tmp_path / "none/result.json"
    before, onnx = result.stat(), (tmp_path / "none/compressed.onnx").read_bytes()
    run(trained, tmp_path / "none", train="none")
    assert result.stat() == before
    (tmp_path / "none/fitted.safetensors").unlink()
    run(trained, tmp_path / "none", train="none")
    assert (tmp_path / "none/compressed.onnx").read_bytes() == onnx
