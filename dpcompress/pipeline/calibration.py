"""The table of a run, corrected by a few whole networks."""

from __future__ import annotations

import numpy as np
from torch import nn

from dpcompress.blueprint import Blueprint
from dpcompress.latency.correction import corrected
from dpcompress.latency.fidelity import spread_plans
from dpcompress.pipeline.fidelity import time_plans
from dpcompress.progress import Progress, silent
from dpcompress.tables import LatencyTable


def calibrate(
    table: LatencyTable,
    network: nn.Module,
    blueprint: Blueprint,
    *,
    count: int = 5,
    progress: Progress = silent,
) -> LatencyTable:
    """`table` corrected by `count` networks, from the fastest plan to the original,
    measured interleaved: see `dpcompress.latency.correction`."""
    plans = spread_plans(blueprint, table, count)
    # The original last: equally fast plans may come in any order.
    plans.sort(key=lambda plan: len(plan.spans) == blueprint.depth)
    times = time_plans(network, plans, table, progress=progress)
    sums = np.array([(plan.latency_ms or 0.0) - table.fixed_ms for plan in plans])
    return corrected(table, sums, np.array([time.median_ms for time in times]))
