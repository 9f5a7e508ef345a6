"""Synthetic tables: the published importances are not available, and no published network
is deep enough to show how the solver grows. Everything follows from the seed."""

from __future__ import annotations

import numpy as np
import pandas as pd

from dpcompress.tables import ImportanceTable, LatencyTable

ALPHA = 1.6
COLUMNS = ["start", "stop", "act_start", "act_stop", "importance"]


def importance_for(latency: LatencyTable, seed: int, every: int = 3) -> ImportanceTable:
    """Importances for the spans of a MobileNetV2-like table, normalised and extended.

    Each activation is worth something, a span loses about the sum of those inside, an
    added activation at a block end (position 2, 5, 8, ...) gains a little; a single layer
    is scored as if re-initialised, so it loses a little.
    """
    rng = np.random.default_rng(seed)
    depth = latency.depth
    worth = rng.gamma(2.0, 0.004, depth + 1)

    def flags(position: int) -> tuple[int, ...]:
        return (0, 1) if position > 0 and position % every == every - 1 else (1,)

    raw = {}
    for start, stop in zip(latency.frame["start"], latency.frame["stop"], strict=True):
        inside = worth[start + 1 : stop].sum() * rng.uniform(0.6, 1.4)
        lost = rng.gamma(2.0, 0.005) if stop - start == 1 else inside
        for a in flags(start):
            for b in flags(stop):
                added = rng.normal(0.002, 0.001) if b and len(flags(stop)) == 2 else 0.0
                raw[int(start), int(stop), a, b] = added - lost
    mean = np.mean([v for (i, j, _, _), v in raw.items() if j - i == 1])
    table = {key: value - ALPHA * mean for key, value in raw.items()}
    extended: dict[tuple[int, int, int, int], float] = {}
    for i, j, a, b in sorted(table, key=lambda key: key[1] - key[0]):
        joined = [
            extended[i, m, a, 0] + table[m, j, 0, b]
            for m in range(i + 1, j)
            if (i, m, a, 0) in extended and (m, j, 0, b) in table
        ]
        extended[i, j, a, b] = max([table[i, j, a, b], *joined])
    rows = [(*key, value) for key, value in sorted(extended.items())]
    header = {"estimator": "synthetic", "seed": seed, "alpha": ALPHA, "mean": float(mean)}
    return ImportanceTable(pd.DataFrame(rows, columns=COLUMNS), header)


def chain(depth: int, longest: int, seed: int) -> tuple[LatencyTable, ImportanceTable]:
    """A chain of `depth` layers with every span of up to `longest` layers and all flags.

    Merging saves time up to about five layers, then kernels grow.
    """
    rng = np.random.default_rng(seed)
    layer = rng.gamma(4.0, 0.25, depth)
    worth = rng.gamma(1.0, 0.5, depth + 1)
    times, scores = [], []
    for start in range(depth):
        for stop in range(start + 1, min(start + longest, depth) + 1):
            length = stop - start
            growth = 1.0 if length == 1 else 0.55 + 0.08 * length
            time = layer[start:stop].sum() * growth * rng.uniform(0.5, 1.2)
            times.append((start, stop, time))
            base = -worth[start + 1 : stop].sum() * rng.uniform(0.7, 1.3)
            for a in (0, 1) if start else (1,):
                for b in (0, 1):
                    value = base + 0.05 * (a + b) + rng.normal(0, 0.05)
                    scores.append((start, stop, a, b, value))
    columns = ["start", "stop", "latency_ms"]
    return (
        LatencyTable(pd.DataFrame(times, columns=columns), {"seed": seed}),
        ImportanceTable(pd.DataFrame(scores, columns=COLUMNS), {"seed": seed}),
    )
