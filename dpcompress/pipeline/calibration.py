"""The table of a run, corrected by a few whole networks."""

from __future__ import annotations

from torch import nn

from dpcompress.blueprint import Blueprint
from dpcompress.pipeline.fidelity import judge, time_plans
from dpcompress.progress import Progress, silent
from dpcompress.solver import spread_plans
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
    times = time_plans(network, plans, table, progress=progress)
    return judge(table, plans, times, count)[0]
