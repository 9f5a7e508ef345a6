"""The time-grid DP that rounds latencies down, written plainly, to compare with.

Kim et al. 2023, Alg. 2, as commonly implemented: time is cut into steps of 1/precision ms
and each T_opt is floored to whole steps. Takes T_opt of every stretch as given.
"""

from __future__ import annotations

import math

import numpy as np

from dpcompress.blueprint import Span
from dpcompress.solver import Stretch
from dpcompress.tables import ImportanceTable


def floored_plan(
    t_opt: dict[Span, Stretch], scores: ImportanceTable, budget_ms: float, precision: int
) -> tuple[float, float]:
    """(latency, importance) that the plan really has, which the grid finds best.

    best[j][b][t]: the highest importance of a way to position j with flag b in at most t
    steps; back[j][b][t]: the row and the steps before it.
    """
    steps = math.floor(budget_ms * precision)
    rows = sorted(scores.frame.itertuples(index=False), key=lambda row: row.stop)
    best = np.full((scores.depth + 1, 2, steps + 1), -np.inf)
    back = np.full((scores.depth + 1, 2, steps + 1), -1)
    best[0, 1] = 0.0
    for number, row in enumerate(rows):
        cost = math.floor(t_opt[Span(row.start, row.stop)].latency_ms * precision)
        if cost > steps:
            continue
        value = best[row.start, row.act_start, : steps + 1 - cost] + row.importance
        target = best[row.stop, row.act_stop, cost:]
        better = value > target
        target[better] = value[better]
        back[row.stop, row.act_stop, cost:][better] = number
    position, t = scores.depth, steps
    flag = int(best[position, 1, t] > best[position, 0, t])
    latency, importance = 0.0, float(best[position, flag, t])
    while position:
        row = rows[back[position, flag, t]]
        stretch = t_opt[Span(row.start, row.stop)]
        latency += stretch.latency_ms
        t -= math.floor(stretch.latency_ms * precision)
        position, flag = row.start, row.act_start
    return latency, importance
