import json
from pathlib import Path

import pandas as pd
import pytest
import torch

from dpcompress.blueprint import Plan, keep_everything
from dpcompress.errors import EngineUnavailable
from dpcompress.graph import trace
from dpcompress.latency import profile
from dpcompress.pipeline.whole_networks import (
    check_table,
    judge,
    merged_onnx,
    write_check,
)
from dpcompress.runner import Measurement, NetworkTiming, OpTiming, Target
from dpcompress.tables import LatencyTable

QUICK = OpTiming(min_samples=5, max_samples=5, max_disturbed=0)
QUICK_NETWORKS = NetworkTiming(
    sample_ms=0.3, min_rounds=5, max_rounds=5, max_disturbed=0, min_seconds=0
)


@pytest.mark.slow
def test_builds_measures_and_reports_whole_networks(tmp_path: Path) -> None:
    layers = [torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.ReLU()]
    layers += [torch.nn.Conv2d(8, 8, 3, padding=1), torch.nn.ReLU()]
    network = torch.nn.Sequential(*layers).eval()
    blueprint = trace(network, (3, 16, 16))
    original = merged_onnx(network, keep_everything(blueprint), 2)
    table = profile(
        blueprint, original=original, target=Target(threads=1, batch=2), timing=QUICK
    )
    same, found = check_table(network, blueprint, table, 2, timing=QUICK_NETWORKS)
    # There are two plans: one convolution, or both.
    assert {network.boundaries for network in found.networks} == {(0, 2), (0, 1, 2)}
    assert all(network.measured_ms > 0 for network in found.networks)
    assert same == table  # no network was left to correct it with
    data, picture = write_check(found, tmp_path / "T.csv")
    assert json.loads(data.read_text())["networks"] == 2
    assert data.name == "T.check.json" and picture.read_bytes()[:4] == b"\x89PNG"

    elsewhere = LatencyTable(table.frame, {**table.header, "precision": "int3"})
    with pytest.raises(EngineUnavailable, match="int3"):
        check_table(network, blueprint, elsewhere, 2)


def test_some_networks_correct_the_table_and_the_others_judge_it() -> None:
    """Networks take half of Σ rows + 2 ms, whatever the table said; the original is the
    one that is cut least, even if another is slower."""
    frame = pd.DataFrame(
        {"start": [0, 1, 2, 0, 1, 0], "stop": [1, 2, 3, 2, 3, 3]}
    ).assign(latency_ms=[2.0, 2.0, 4.0, 5.0, 7.0, 3.0], spread_ms=0.1)
    table = LatencyTable(frame, {"fixed_ms": "1", "e2e_ms": "9"})
    sums = {(0, 3): 3.0, (0, 2, 3): 9.0, (0, 1, 3): 9.5, (0, 1, 2, 3): 8.0}
    plans = [Plan.build(way, way[1:], predicted_ms=1 + ms) for way, ms in sums.items()]
    times = [Measurement.of([ms / 2 + 2] * 5) for ms in sums.values()]
    found, fidelity = judge(table, plans, times, 3)
    assert found.e2e_ms == pytest.approx(6)
    assert float(found.header["calibration"]) == pytest.approx(0.5)
    assert found.fixed_ms == pytest.approx(2)
    (other,) = fidelity.networks
    assert other.boundaries == (0, 2, 3)
    assert other.predicted_ms == pytest.approx(10)
    assert other.corrected_ms == other.measured_ms == pytest.approx(6.5)
    assert fidelity.summary["uncorrected_worst_error"] == pytest.approx(10 / 6.5 - 1)
