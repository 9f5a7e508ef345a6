"""`shrink` end to end on a small network, cut off and gone on with."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pytest
import torch

from dpcompress.blueprint import Blueprint, Plan, candidates
from dpcompress.errors import BadInput, BadTable, UsageError
from dpcompress.pipeline import ShrinkSettings, compress, shrink
from dpcompress.progress import Progress, silent
from dpcompress.runner import Target
from dpcompress.tables import LatencyTable
from dpcompress.training import Recipe
from tests.pipeline.test_resume import NETWORK

NETWORKS = """
def blocks():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
        Block(), Block(), nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10),
    )

def plain():
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))
"""


class Cut(Exception):
    pass


def cutting(title: str, step: int):  # type: ignore[no-untyped-def]
    """Bars that end the run at a step of one of its parts."""

    @contextmanager
    def bars(name: str) -> Iterator[Progress]:
        def progress(done: int, total: int, note: str = "") -> None:
            if done == step:
                raise Cut

        yield progress if name.startswith(title) else silent

    return bars


@pytest.fixture
def nets(tmp_path: Path) -> Path:
    torch.set_num_threads(1)
    (tmp_path / "nets.py").write_text(NETWORK + NETWORKS)
    return tmp_path / "nets.py"


def settings(nets: Path, **changes: object) -> ShrinkSettings:
    return ShrinkSettings(
        model=f"{nets}:blocks",
        **{"input": (3, 16, 16), "data": "digits", "target": Target(threads=1)},
        **{"keep": 1, "by": "block", **changes},
        pretrain=Recipe(epochs=6, batch_size=32, lr=0.1),
        search=Recipe(epochs=2, batch_size=64, lr=0.05, distill_weight=0.5),
        finetune=Recipe(epochs=3, batch_size=64, lr=0.05, distill_weight=0.5),
    )  # type: ignore[arg-type]


@pytest.mark.slow
def test_a_run_that_was_cut_off_ends_like_one_that_was_not(nets: Path, tmp_path: Path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    result = shrink(settings(nets), whole)
    for bars in (cutting("Search", 20), cutting("Fine-tune", 40)):
        with pytest.raises(Cut):
            shrink(settings(nets), cut, bars)
    assert (cut / "finetune.checkpoint").exists()
    shrink(None, cut)
    names = {path.name for path in whole.iterdir()}
    assert names == {path.name for path in cut.iterdir()}
    assert {"masks.csv", "masks.png", "structure.png", "certificate.json"} <= names
    measured = {"result.json", "steps.json", "run.json"}
    for name in sorted(names - measured):
        assert (whole / name).read_bytes() == (cut / name).read_bytes(), name

    assert (result.original.layers, result.compressed.layers) == (8, 6)
    assert result.original.predicted_ms is None
    masks = json.loads((whole / "masks.json").read_text())
    plan = Plan.from_json((whole / "plan.json").read_bytes())
    assert len(masks["on"]) == 1 and list(plan.activations) == masks["activations"]
    assert json.loads((whole / "certificate.json").read_text())["holds"] is True

    with pytest.raises(UsageError, match=r"other settings \(keep\)"):
        shrink(settings(nets, keep=2), whole)
    with pytest.raises(UsageError, match="another verb than compress"):
        compress(None, whole)

    # Of the same masks, a table decides what merges, and weighs them.
    blueprint = Blueprint.from_json((whole / "blueprint.json").read_bytes())
    rows = [{"start": i, "stop": j, "latency_ms": 1.0 + 10 * (j - i > 2)}
            for i, j in candidates(blueprint)]  # fmt: skip
    header = {
        "blueprint": blueprint.digest,
        "input": "3x16x16",
        "e2e_ms": 6,
        "fixed_ms": 1,
    }
    LatencyTable(pd.DataFrame(rows), header).write(tmp_path / "T.csv")
    timed = shrink(settings(nets, latency=str(tmp_path / "T.csv")), tmp_path / "timed")
    plan = Plan.from_json((tmp_path / "timed/plan.json").read_bytes())
    assert max(span.length for span in plan.merged) == 2
    assert timed.compressed.predicted_ms == plan.predicted_ms == 1 + len(plan.spans)
    # No whole network corrected the table, and no loop the prediction.
    assert timed.compressed.uncorrected_ms == plan.predicted_ms
    assert timed.compressed.corrected_ms is None
    assert timed.original.predicted_ms == 1 + 8 and timed.original_then_ms == 6


def test_bad_input_ends_before_any_training(nets: Path, tmp_path: Path):
    run = tmp_path / "run"
    for keep in (0, 5):
        with pytest.raises(UsageError, match="Keep 1 to 2"):
            shrink(settings(nets, keep=keep), run)
    plain = settings(nets).model_copy(update={"model": f"{nets}:plain"})
    with pytest.raises(BadInput, match="no residual blocks"):
        shrink(plain, run)
    rows = pd.DataFrame([{"start": 0, "stop": 1, "latency_ms": 1.0}])
    LatencyTable(rows, {"blueprint": "0123456789abcdef"}).write(tmp_path / "T.csv")
    with pytest.raises(BadTable, match="another network or input size"):
        shrink(settings(nets, latency=str(tmp_path / "T.csv")), run)
    with pytest.raises(UsageError, match="holds no run"):
        shrink(None, run)
    assert not run.exists()
