import json
from pathlib import Path

import pytest
import torch

from dpcompress.blueprint import keep_everything
from dpcompress.errors import EngineUnavailable
from dpcompress.graph import trace
from dpcompress.latency import profile
from dpcompress.pipeline.fidelity import check_table, merged_onnx, write_check
from dpcompress.runner import Sampling
from dpcompress.tables import LatencyTable

QUICK = Sampling(window_ms=0.3, min_rounds=5, max_rounds=5, max_repeats=0)


@pytest.mark.slow
def test_builds_measures_and_reports_whole_networks(tmp_path: Path) -> None:
    layers = [torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.ReLU()]
    layers += [torch.nn.Conv2d(8, 8, 3, padding=1), torch.nn.ReLU()]
    network = torch.nn.Sequential(*layers).eval()
    blueprint = trace(network, (3, 16, 16))
    original = merged_onnx(network, keep_everything(blueprint), 2)
    table = profile(blueprint, original=original, batch=2, threads=1, sampling=QUICK)
    same, found = check_table(network, blueprint, table, 2, sampling=QUICK)
    # There are two plans: one convolution, or both.
    assert {run.boundaries for run in found.runs} == {(0, 2), (0, 1, 2)}
    assert all(run.measured_ms > 0 for run in found.runs)
    assert same == table  # no network was left to correct it with
    data, picture = write_check(found, tmp_path / "T.csv")
    assert json.loads(data.read_text())["networks"] == 2
    assert data.name == "T.check.json" and picture.read_bytes()[:4] == b"\x89PNG"

    elsewhere = LatencyTable(table.frame, {**table.header, "precision": "int3"})
    with pytest.raises(EngineUnavailable, match="int3"):
        check_table(network, blueprint, elsewhere, 2)
