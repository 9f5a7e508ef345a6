"""Planned networks built and measured; with what was measured kept, nothing changes."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from dpcompress.blueprint import Blueprint, Plan, keep_everything
from dpcompress.errors import BadInput, BadTable
from dpcompress.graph import trace
from dpcompress.latency import Store, profile
from dpcompress.pipeline.trials import Trials
from dpcompress.pipeline.whole_networks import merged_onnx
from dpcompress.runner import NETWORKS, OpTiming, Target
from dpcompress.tables import LatencyTable

QUICK = OpTiming(min_samples=5, max_samples=5, max_disturbed=0)


@pytest.fixture(scope="module")
def made() -> tuple[nn.Module, Blueprint, bytes, LatencyTable]:
    """Two 1×1 convolutions, one after the other, 16 times as wide between them."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(16, 256, 1), nn.ReLU(), nn.Conv2d(256, 16, 1), nn.ReLU()]
    network = nn.Sequential(*layers).eval()
    blueprint = trace(network, (16, 32, 32))
    original = merged_onnx(network, keep_everything(blueprint), 4)
    table = profile(
        blueprint, original=original, target=Target(threads=1, batch=4), timing=QUICK
    )
    return network, blueprint, original, table


def merged(blueprint: Blueprint) -> Plan:
    about = {"blueprint": blueprint.digest, "input": blueprint.input}
    return Plan.build((0, 2), (2,), **about)


@pytest.mark.slow
def test_times_are_ratios_in_the_frame_of_the_table(made, tmp_path: Path) -> None:
    network, blueprint, original, table = made
    same, merge = keep_everything(blueprint), merged(blueprint)
    half = LatencyTable(table.frame, {**table.header, "e2e_ms": "100"})
    with Store(tmp_path / "kept.sqlite") as store:
        trials = Trials(network, original, half, store, timing=NETWORKS)
        assert trials.original_now_ms is None and trials.original_then_ms == 100
        same_ms, merged_ms = trials(same), trials(merge)
        assert trials.original_now_ms is not None and trials.original_now_ms < 100
        # The original beside itself takes what the table says; 16 times less work less.
        assert same_ms == pytest.approx(100, rel=0.1)
        assert merged_ms < 60
        assert trials(merge) == merged_ms
    with Store(tmp_path / "kept.sqlite") as store:
        # From a network that cannot be built nothing can be measured.
        again = Trials(nn.Identity(), original, half, store)
        assert (again(same), again(merge)) == (same_ms, merged_ms)
        assert again.original_now_ms is None
        about = {"blueprint": blueprint.digest, "input": blueprint.input}
        with pytest.raises(BadInput):
            again(Plan.build((0, 1, 2), (2,), **about))


def test_only_for_the_machine_of_the_table(made) -> None:
    network, _, original, table = made
    for key, value in (("device", "abacus"), ("engine_version", "0.1")):
        elsewhere = LatencyTable(table.frame, {**table.header, key: value})
        with pytest.raises(BadTable, match=f"{key} differ"):
            Trials(network, original, elsewhere, Store())
    published = replace(table, header={"blueprint": table.blueprint})
    with pytest.raises(BadTable, match="does not say what it was measured with"):
        Trials(network, original, published, Store())
