"""The tables in latency_tables/: whole, of the networks that they name, and useful."""

from __future__ import annotations

from pathlib import Path

import pytest

from dpcompress.graph import trace
from dpcompress.latency.frames import METHOD
from dpcompress.latency.workload import Workload
from dpcompress.models import load_model
from dpcompress.runner import ENGINES, Engine
from dpcompress.solver import solve
from dpcompress.tables import LatencyTable
from experiments.solver.synthetic import importance_for

FOLDER = Path(__file__).parents[1] / "latency_tables"
FILES = sorted(FOLDER.glob("*.csv"))
MODELS: dict[str, tuple[str, dict[str, object]]] = {
    "mobilenet_v2_1.0": ("torchvision:mobilenet_v2", {}),
    "mobilenet_v2_1.4": ("torchvision:mobilenet_v2", {"width_mult": 1.4}),
    "efficientnet_lite0": ("timm:efficientnet_lite0", {}),
    "resnet18": ("torchvision:resnet18", {}),
    "resnet34": ("torchvision:resnet34", {}),
    "vgg19_bn": ("torchvision:vgg19_bn", {}),
}
MADE_OF = ("engine_version", "device", "threads", "date", "max_growth", "max_weight_mb")


def test_the_readme_names_every_table() -> None:
    text = (FOLDER / "README.md").read_text()
    assert FILES
    for file in FILES:
        assert f"`{file.name}`" in text


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_says_how_it_was_made(file: Path) -> None:
    model, engine, batch = file.stem.rsplit("_", 2)
    table = LatencyTable.read(file)
    header = table.header
    assert model in MODELS and engine in ENGINES
    assert header["engine"] == engine and f"batch{header['batch']}" == batch
    assert header["precision"] == "fp32"
    assert header["method"] in {"framed-2", "framed-3", METHOD}
    assert table.input == (3, 224, 224)
    assert all(header[key] for key in MADE_OF)
    frame = table.frame
    assert (frame["latency_ms"] > 0).all() and (frame["samples"] >= 5).all()
    # Half an interquartile range as large as the time itself is no measurement.
    assert (frame["spread_ms"] < frame["latency_ms"]).mean() > 0.95
    assert table.e2e_ms is not None
    singles_ms = float(header["single_layers_ms"])
    assert 0.7 * table.e2e_ms < singles_ms < 1.2 * table.e2e_ms


@pytest.mark.slow
@pytest.mark.parametrize("model", sorted({f.stem.rsplit("_", 2)[0] for f in FILES}))
def test_is_of_the_network_that_it_names(model: str) -> None:
    name, arguments = MODELS[model]
    if name.startswith("timm:"):
        pytest.importorskip("timm")
    blueprint = trace(load_model(name, None, arguments), (3, 224, 224))
    programs = Workload(blueprint, 1, Engine.most_copies).programs
    signatures = {framed.program.signature for framed in programs.values()}
    candidates = {key.span for key in programs}
    for file in FILES:
        if file.stem.rsplit("_", 2)[0] == model:
            table = LatencyTable.read(file)
            table.require(blueprint.digest)
            frame = table.frame
            spans = {*zip(frame["start"], frame["stop"], strict=True)}
            assert spans == {tuple(span) for span in candidates}
            assert {*frame["signature"]} == signatures
            assert {*table.span_times(blueprint)} == candidates


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_plan_can_be_found_for_it(file: Path) -> None:
    table = LatencyTable.read(file)
    frontier = solve(table, importance_for(table, 0))
    # Two dense 3×3 convolutions as one 5×5 one gain a CPU nothing; narrow blocks do.
    least = 0.9 if file.stem.startswith(("mobilenet", "efficientnet")) else 1.0
    assert table.single_layers_ms is not None
    own_ms = table.fixed_ms + table.single_layers_ms
    assert frontier.latency_ms[0] <= least * own_ms
    budget_ms = (frontier.latency_ms[0] + own_ms) / 2
    plan = frontier.at(budget_ms)
    assert plan.predicted_ms is not None and plan.predicted_ms <= budget_ms
