"""A run folder is read and written with types, and remembers what was."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from dpcompress.blueprint import Plan
from dpcompress.errors import BadInput
from dpcompress.exporters import ExportCheck
from dpcompress.graph.certificate import Certificate, Difference, SpanProof
from dpcompress.graph.fit_merged import FitReport, FittedSpan
from dpcompress.pipeline import RunFolder, Settings, ShrinkSettings, open_run
from dpcompress.pipeline.closed_loop import Loop, Trial
from dpcompress.pipeline.folder import MasksFound, Original
from dpcompress.training import Metrics

PLAN = Plan.build((0, 2, 3), (2, 3), predicted_ms=2.5, importance=-1.0)
SETTINGS = Settings(model="m", input=(3, 8, 8), data="digits", budget="70%")
SAME = Difference(float64=1e-15, float32=1e-7, rounding=1e-7)
FILES = {
    "plan": PLAN,
    "frontier": [PLAN],
    "original": Original(
        data={"spec": "digits"},
        heldout=Metrics(0.9, 0.3, 10),
        test=Metrics(0.8, 0.4, 20),
    ),
    "closed_loop": Loop(
        budget_ms=3.0,
        measured_ms=2.5,
        below=1 / 6,
        settled=True,
        why="there is no plan of higher importance",
        trials=(Trial(0, 2.4, 2.4, 2.5), Trial(1, 2.9, 3.0, 3.2)),
    ),
    "certificate": Certificate(
        plan=PLAN,
        network_random=SAME,
        network_real=None,
        spans=(
            SpanProof(
                start=0,
                stop=2,
                kernel=(5, 5),
                random=SAME,
                real=SAME,
                range_growth=1.5,
            ),
        ),
        fp16_linearized="overflow",
    ),
    "fit_report": FitReport(
        plan=PLAN,
        images=64,
        ridge=1e-4,
        spans=(FittedSpan(start=0, stop=2, kernel=(5, 5), residual=0.25),),
    ),
    "export_check": ExportCheck(
        images=8, max_error=1e-6, max_output=2.0, tolerance=2e-4, clear=8, same_top1=8
    ),
    "masks": MasksFound(groups=((1, 2), (3,)), on=(1,), activations=(3,)),
    "compressed_onnx": b"onnx",
}


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder[Settings]:
    (tmp_path / "run.json").write_text(SETTINGS.model_dump_json())
    return RunFolder(tmp_path, Settings)


@pytest.mark.parametrize("name", FILES)
def test_what_is_written_is_read(folder: RunFolder[Settings], name: str) -> None:
    setattr(folder, name, FILES[name])
    assert getattr(folder, name) == FILES[name]
    (file,) = folder.record.written
    assert folder.record.read == {file} and folder.has(file)


def test_the_history_of_masks_is_read(folder: RunFolder[Settings]) -> None:
    history = pd.DataFrame({"done": [0.0, 0.5], "positions": ["1", "2-3"]})
    folder.mask_history = history
    pd.testing.assert_frame_equal(folder.mask_history, history)


def test_a_missing_or_damaged_file_is_named(folder: RunFolder[Settings]) -> None:
    with pytest.raises(BadInput, match=r"has no plan\.json\. Finish the run"):
        _ = folder.plan
    folder.closed_loop = FILES["closed_loop"]  # type: ignore[assignment]
    path = folder.path / "closed_loop.json"
    path.write_text(path.read_text().replace("true", '"perhaps"'))
    with pytest.raises(BadInput, match=r"closed_loop\.json is not valid: settled: "):
        _ = folder.closed_loop


def test_a_run_is_opened_whatever_made_it(folder: RunFolder[Settings]) -> None:
    opened = open_run(folder.path)
    assert opened.kind is Settings and opened.settings == SETTINGS
    shared = SETTINGS.model_dump(include={"model", "input", "data"})
    other = ShrinkSettings(**shared, keep=2)
    file = folder.path / "run.json"
    file.write_text(other.model_dump_json())
    opened = open_run(folder.path)
    assert opened.kind is ShrinkSettings and opened.settings == other
    file.write_text("{}")
    with pytest.raises(BadInput, match="not a valid"):
        open_run(folder.path)
    file.write_text(json.dumps({"version": 1, "model": "m"}))
    with pytest.raises(BadInput, match=r"--latency .*latency\.csv"):
        open_run(folder.path)
    with pytest.raises(BadInput, match="holds no run"):
        open_run(folder.path / "elsewhere")
