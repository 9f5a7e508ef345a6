"""On the published tables: the published stage 1, and the optimum that HiGHS finds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dpcompress.solver import fastest, latency_limit, solve
from dpcompress.tables import LatencyTable
from experiments.solver.synthetic import importance_for
from tests.solver.milp import optimum

BUDGETS = (25.0, 22.1, 20.0, 18.0)


@pytest.mark.parametrize("name", ["mbv2_1.0", "vgg19_no_trt"])
def test_stage_1_is_the_published_one(name: str, shared: Path) -> None:
    folder = shared / "reference_tables"
    found = fastest(LatencyTable.read(folder / f"{name}_t.csv"))
    published = pd.read_csv(folder / f"{name}_t_opt.csv")
    assert len(published) == len(found)
    for row in published.itertuples():
        stretch = found[row.st, row.end]
        assert stretch.latency_ms == pytest.approx(row.time, abs=1e-9)
        assert ",".join(map(str, stretch.boundaries)) == row.breaks


@pytest.mark.parametrize("seed", range(3))
def test_plans_are_optimal(seed: int, shared: Path) -> None:
    latency = LatencyTable.read(shared / "reference_tables" / "mbv2_1.0_t.csv")
    importance = importance_for(latency, seed)
    frontier = solve(latency, importance)
    rows = latency.frame.set_index(["start", "stop"])["latency_ms"]
    for budget in BUDGETS:
        plan = frontier.at(budget)
        total = 0.0
        for span in plan.spans:
            total += rows[span]
        assert total == plan.predicted_ms <= budget
        assert plan.importance == pytest.approx(
            optimum(latency, importance, budget)[1], abs=1e-7
        )


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.6, 0.8])
def test_two_engines_at_once(share: float, shared: Path) -> None:
    latency = LatencyTable.read(shared / "reference_tables" / "mbv2_1.0_t.csv")
    importance = importance_for(latency, 0)
    frame = latency.frame
    other = frame["latency_ms"] * np.random.default_rng(1).uniform(0.5, 1.5, len(frame))
    second = LatencyTable(frame.assign(latency_ms=other), latency.header)
    second_ms = share * float(second.single_layers_ms or 0)
    limits = [latency_limit("second engine", second, second_ms)]
    frontier = solve(latency, importance, limits=limits)
    for budget in BUDGETS:
        plan = frontier.at(budget)
        assert plan.importance == pytest.approx(
            optimum(latency, importance, budget, second, second_ms)[1], abs=1e-7
        )
