"""The whole path on a plain chain: torchvision's VGG with batch norm, narrowed."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from dpcompress.pipeline import Scoring, Settings, compress
from dpcompress.pipeline.folder import RunFolder
from dpcompress.pipeline.whole_networks import uncorrected_ms
from dpcompress.runner import Target
from dpcompress.training import Recipe

NETWORK = """
from torch import nn
from torchvision.models.vgg import make_layers

def vgg_bn():
    features = make_layers([32, 32, "M", 64, 64, "M"], batch_norm=True)
    head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)
    return nn.Sequential(features, *head)
"""


@pytest.mark.slow
def test_a_vgg_becomes_shallower(tmp_path: Path):
    (tmp_path / "nets.py").write_text(NETWORK)
    settings = Settings(
        model=f"{tmp_path / 'nets.py'}:vgg_bn",
        input=(3, 16, 16),
        data="digits",
        target=Target(threads=1, batch=8),
        budget="80%",
        pretrain=Recipe(epochs=5, batch_size=32, lr=0.05),
        scoring=Scoring(recipe=Recipe(steps=4, batch_size=32, lr=0.02)),
        finetune=Recipe(epochs=3, batch_size=32, lr=0.02, distill_weight=0.5),
    )
    result = compress(settings, tmp_path / "run")
    assert result.compressed.layers < result.original.layers == 4
    assert result.compressed.macs < result.original.macs
    assert result.compressed.accuracy > 0.8
    assert result.loop is not None and result.loop.measured_ms <= result.loop.budget_ms
    run = RunFolder(tmp_path / "run", Settings)
    plan, table, loop = run.plan, run.latency, result.loop
    assert (loop.measured_ms, loop.chosen.predicted_ms) == (
        plan.measured_ms,
        plan.predicted_ms,
    )
    # What the ops told, what whole networks made of it, and what was measured.
    compressed = result.compressed
    assert compressed.uncorrected_ms == uncorrected_ms(table, plan.predicted_ms)
    assert compressed.predicted_ms == plan.predicted_ms
    assert compressed.corrected_ms == loop.chosen.corrected_ms
    now_ms, then_ms = result.original.measured.median_ms, table.e2e_ms
    assert result.original_then_ms == then_ms
    assert result.expected_ms == pytest.approx(compressed.corrected_ms * now_ms / then_ms)
    off = result.expected_ms / compressed.measured.median_ms - 1
    assert result.prediction_error == pytest.approx(off)
    assert any(f"off by {off:+.1%}" in sentence for sentence in result.sentences)
    graph = onnx.load(tmp_path / "run" / "compressed.onnx").graph
    kinds = [node.op_type for node in graph.node]
    assert kinds.count("Conv") == result.compressed.layers
    assert "BatchNormalization" not in kinds
