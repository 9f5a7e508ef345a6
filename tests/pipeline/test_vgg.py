"""The whole path on a plain chain: torchvision's VGG with batch norm, narrowed."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from dpcompress.blueprint import Plan
from dpcompress.pipeline import Scoring, Settings, compress
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
        batch=8,
        threads=1,
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
    chosen = Plan.from_json((tmp_path / "run" / "plan.json").read_bytes())
    assert result.compressed.predicted_ms == chosen.predicted_ms
    assert result.loop.measured_ms == chosen.measured_ms
    then_ms, now_ms = result.original.predicted_ms, result.original.measured.median_ms
    assert result.predicted_now_ms == pytest.approx(
        chosen.predicted_ms * now_ms / then_ms
    )
    graph = onnx.load(tmp_path / "run" / "compressed.onnx").graph
    kinds = [node.op_type for node in graph.node]
    assert kinds.count("Conv") == result.compressed.layers
    assert "BatchNormalization" not in kinds
