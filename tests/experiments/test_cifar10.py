"""The comparison's own parts: narrowing, choosing cells, the picture."""

import json
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import nn

from dpcompress.errors import BadInput, UsageError
from dpcompress.graph import trace
from experiments.cifar10.compare import cells, kept
from experiments.cifar10.config import Config, read_config
from experiments.cifar10.network import mobilenet_v2
from experiments.cifar10.plot import plot, summary
from experiments.cifar10.width import narrowed

CONFIGS = Path(__file__).parents[2] / "experiments" / "cifar10"


@pytest.mark.slow
@pytest.mark.parametrize("width", [1.0, 0.6])
@torch.no_grad()
def test_narrowing_keeps_the_channels_that_matter(width: float) -> None:
    """All but as many channels as the narrow network has are dead in the wide one, so the
    narrow one must compute the same."""
    torch.manual_seed(0)
    wide, narrow = mobilenet_v2().double().eval(), mobilenet_v2(width)
    counts = {
        name: module.weight.shape[0]
        for name, module in narrow.named_modules()
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d)
    }
    for name, module in wide.named_modules():
        if isinstance(module, nn.Conv2d):
            module.weight[counts[name] :] = 0
        elif isinstance(module, nn.BatchNorm2d):
            module.running_mean[: counts[name]].normal_(std=0.1)  # type: ignore[index]
            nn.init.normal_(module.bias)
            module.bias[counts[name] :] = 0
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    expected = wide(images)
    found = narrowed(wide, trace(wide, (3, 32, 32)), width).double().eval()
    assert torch.allclose(found(images), expected, rtol=1e-5)
    sizes = [sum(p.numel() for p in n.parameters()) for n in (found, wide)]
    assert sizes[0] < sizes[1] or width == 1.0


@pytest.mark.parametrize("name", ["smoke", "cpu", "gpu"])
def test_configs_are_read_and_name_known_methods(name: str) -> None:
    config = read_config(CONFIGS / f"{name}.json")
    jobs = list(cells(config))
    assert len(jobs) == len(set(jobs))
    originals = [job for job in jobs if job[0] == "original"]
    assert [job[1:] for job in originals] == [(1.0, seed) for seed in config.seeds]


def test_bad_configs(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text('{"methods": [], "speedups": [0.5]}')
    with pytest.raises(BadInput, match="speedups"):
        read_config(path)
    config = Config.model_validate(
        {"methods": ["magic"], "speedups": [2], "seeds": [0], "recipe": {}}
    )
    with pytest.raises(UsageError, match="magic"):
        list(cells(config))


def test_what_was_made_is_not_made_again(tmp_path: Path) -> None:
    path, made = tmp_path / "cells" / "a.json", []

    def make() -> dict[str, int]:
        made.append(1)
        return {"x": 1}

    assert kept(path, make) == kept(path, make) == json.loads(path.read_text())
    assert len(made) == 1


def test_summary_and_plot() -> None:
    rows = pd.DataFrame(
        {
            "method": ["a", "a", "b"],
            "budget": [1.5, 1.5, 1.5],
            "seed": [0, 1, 0],
            "speedup": [1.4, 1.6, 1.5],
            "accuracy": [0.8, 0.9, 0.7],
            "train_seconds": [1.0, 3.0, 2.0],
        }
    )
    found = summary(rows).iloc[0]
    assert found["speedup"] == pytest.approx(1.5) and found["seeds"] == 2
    assert found["error"] == pytest.approx(0.05)
    assert plot(rows).startswith(b"\x89PNG")
