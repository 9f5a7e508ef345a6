import numpy as np
import pandas as pd
import pytest

from dpcompress.blueprint import Span, candidates
from dpcompress.solver import spread_plans
from dpcompress.tables import LatencyTable
from tests.latency.blueprints import mobilenet_v2


@pytest.mark.parametrize("count", [1, 2, 25])
def test_plans_are_spread_evenly_from_the_fastest_to_the_original(count: int) -> None:
    blueprint = mobilenet_v2(64)
    spans = candidates(blueprint)
    rng = np.random.default_rng(0)
    cost = [1e-7 * m.macs * rng.uniform(0.5, 2) + 0.1 for m in spans.values()]
    frame = pd.DataFrame([*spans], columns=["start", "stop"]).assign(latency_ms=cost)
    table = LatencyTable(frame, {"fixed_ms": "2"})
    plans = spread_plans(blueprint, table, count)
    assert len({plan.boundaries for plan in plans}) == len(plans) == count
    times = dict(zip(spans, cost, strict=True))
    least = {0: 0.0}
    for stop in range(1, blueprint.depth + 1):
        least[stop] = min(least[s.start] + t for s, t in times.items() if s.stop == stop)
    predicted = [plan.predicted_ms or 0.0 for plan in plans]
    for plan, ms in zip(plans, predicted, strict=True):
        assert ms == pytest.approx(2 + sum(times[Span(*span)] for span in plan.spans))
        kept = [p for p in plan.boundaries[1:] if blueprint.has_activation(p)]
        assert list(plan.activations) == kept
    assert predicted[0] == pytest.approx(2 + least[blueprint.depth])
    if count > 1:
        assert plans[-1].boundaries == tuple(range(blueprint.depth + 1))
    if count == 25:
        assert max(np.diff(predicted)) < 2 * (predicted[-1] - predicted[0]) / (count - 1)
