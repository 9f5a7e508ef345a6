"""The comparison's own parts: fewer channels, masks, choosing cells, tables, picture."""

import json
from io import StringIO
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import nn

from dpcompress.depthshrinker import mask_groups
from dpcompress.errors import BadInput, InfeasibleBudget, UsageError
from dpcompress.graph import trace
from dpcompress.tables import LatencyTable
from experiments.cifar10.compare import cells, kept, next_share
from experiments.cifar10.config import Config, read_config
from experiments.cifar10.masks import Ranking
from experiments.cifar10.network import mobilenet_v2
from experiments.cifar10.plot import plot, summary
from experiments.cifar10.pruned import ROUND_TO, pruned
from experiments.cifar10.results import differences, packed, results
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


@pytest.mark.slow
def test_pruned_networks_are_traced_and_have_fewer_channels_everywhere() -> None:
    pytest.importorskip("torch_pruning")
    network = mobilenet_v2().eval()
    small = pruned(network, 0.5, (3, 32, 32)).eval()
    wide, narrow = (dict(n.named_modules()) for n in (network, small))
    blueprint = trace(small, (3, 32, 32))
    for layer in blueprint.layers:
        name = blueprint.ops[layer.conv].name
        share = narrow[name].out_channels / wide[name].out_channels
        assert 0.3 < share < 0.8 and narrow[name].out_channels % ROUND_TO == 0
    assert small(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


@pytest.mark.parametrize("name", ["smoke", "cpu", "gpu"])
def test_configs_are_read_and_name_known_methods(name: str) -> None:
    config = read_config(CONFIGS / f"{name}.json")
    jobs = list(cells(config))
    assert len(jobs) == len(set(jobs))
    assert [job for job in jobs if job[0] == "original"] == [("original", 1.0, 0)]
    for method, seeds in config.methods.items():
        assert {job[2] for job in jobs if job[0] == method} == set(range(seeds))
    assert [job[2] for job in jobs] == sorted(job[2] for job in jobs)


def test_bad_configs(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text('{"methods": {}, "speedups": [0.5]}')
    with pytest.raises(BadInput, match="speedups"):
        read_config(path)
    config = Config.model_validate(
        {"methods": {"magic": 1}, "speedups": [2], "recipe": {}}
    )
    with pytest.raises(UsageError, match="magic"):
        list(cells(config))


def test_the_search_for_a_speed_closes_in() -> None:
    """A network whose time is the square of its share."""
    tried: list[dict[str, float]] = []
    share = 0.5
    for _ in range(6):
        tried.append({"share": share, "speedup": share**-2})
        share = next_share(tried, 2.0)
    assert share == pytest.approx(2**-0.5, rel=1e-3)


def test_what_was_made_is_not_made_again(tmp_path: Path) -> None:
    path, made = tmp_path / "cells" / "a.json", []

    def make() -> dict[str, int]:
        made.append(1)
        return {"x": 1}

    assert kept(path, make) == kept(path, make) == json.loads(path.read_text())
    assert len(made) == 1


def test_masks_fill_a_budget_from_the_highest_down() -> None:
    """Every merged block saves 1 ms of 52, so the budget says how many masks are off."""
    blueprint = trace(mobilenet_v2(), (3, 32, 32))
    groups = mask_groups(blueprint, "block")
    edges = [(group[0] - 1, group[-1] + 1) for group in groups]
    rows = [(i, i + 1, 1.0) for i in range(blueprint.depth)]
    rows += [(i, j, j - i - 1.0) for i, j in edges]
    frame = pd.DataFrame(rows, columns=["start", "stop", "latency_ms"])
    latency = LatencyTable(frame, {"blueprint": blueprint.digest})
    scores = tuple(float(n * 7 % len(groups)) for n in range(len(groups)))
    ranking = Ranking(groups=groups, scores=scores)
    plan = ranking.plan(blueprint, latency, blueprint.depth - 3.0)
    worst = sorted(range(len(groups)), key=lambda mask: scores[mask])[:3]
    off = {position for mask in worst for position in groups[mask]}
    assert not off & set(plan.activations) and len(plan.merged) == 3
    kept = {p for group in groups for p in group} - off
    assert kept <= set(plan.activations)
    with pytest.raises(InfeasibleBudget):
        ranking.plan(blueprint, latency, 1.0)


def test_differences_are_paired() -> None:
    """Arithmetic by hand: a is right where b is, and on 20 of 100 images more."""
    b = torch.arange(100) < 50
    a = torch.arange(100) < 70
    rows = [
        {
            "method": method,
            "budget": 2.0,
            "seed": 0,
            "speedup": 2.0,
            "accuracy": float(right.double().mean()),
            "test_images": 100,
            "right": packed(right),
        }
        for method, right in (("a", a), ("b", b))
    ]
    table = pd.read_csv(StringIO(differences(rows))).set_index("method")
    assert table.loc["a", "difference"] == pytest.approx(0.2)
    assert table.loc["b", "difference"] == pytest.approx(-0.2)
    error = (0.2 * 0.8 * 100 / 99) ** 0.5 / 10
    assert table.loc["a", "error_images"] == pytest.approx(error, abs=1e-5)
    assert table["error_seeds"].isna().all()
    assert "right" not in results(rows).splitlines()[0].split(",")


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
