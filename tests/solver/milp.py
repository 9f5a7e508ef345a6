"""The exact problem as a mixed integer program for HiGHS. Shares no code with the solver.

One path of spans (S) and one of (position, flag) pairs (B); a position of B is one of S.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp

from dpcompress.tables import ImportanceTable, LatencyTable


def optimum(
    latency: LatencyTable,
    importance: ImportanceTable,
    budget_ms: float,
    second: LatencyTable | None = None,
    second_ms: float = 0.0,
) -> tuple[float, float]:
    """(latency, importance) of a most important plan within the budget."""
    spans, rows = latency.frame, importance.frame
    depth, columns = latency.depth, len(spans) + len(rows)
    times, scores = np.zeros(columns), np.zeros(columns)
    times[: len(spans)] = spans["latency_ms"]
    scores[len(spans) :] = rows["importance"]
    span_flow = np.zeros((depth + 1, columns))
    in_span, in_b = np.zeros((depth + 1, columns)), np.zeros((depth + 1, columns))
    for n, (start, stop) in enumerate(zip(spans["start"], spans["stop"], strict=True)):
        span_flow[start, n] -= 1
        span_flow[stop, n] += 1
        in_span[stop, n] = 1
    node_flow = np.zeros((2 * depth + 2, columns))
    for n, row in enumerate(rows.itertuples(index=False), len(spans)):
        node_flow[2 * row.start + row.act_start, n] -= 1
        node_flow[2 * row.stop + row.act_stop, n] += 1
        in_b[row.stop, n] = 1
    through = np.zeros(depth + 1)
    through[[0, depth]] = -1, 1
    # The flags at L are free: its two nodes together take the path.
    node_flow[-2] += node_flow[-1]
    node_flow = node_flow[:-1]
    flags = np.zeros(2 * depth + 1)
    flags[1], flags[-1] = -1, 1
    constraints = [
        LinearConstraint(span_flow, through, through),
        LinearConstraint(node_flow, flags, flags),
        LinearConstraint((in_span - in_b)[1:depth], 0, np.inf),
        LinearConstraint(times, -np.inf, budget_ms),
    ]
    if second is not None:
        other = np.zeros(columns)
        other[: len(spans)] = second.frame["latency_ms"]
        constraints.append(LinearConstraint(other, -np.inf, second_ms))
    result = milp(
        -scores,
        integrality=np.ones(columns),
        bounds=Bounds(0, 1),
        constraints=constraints,
        options={"mip_rel_gap": 0.0},
    )
    assert result.success, result.message
    chosen = np.round(result.x)
    return float(times @ chosen), float(scores @ chosen)
