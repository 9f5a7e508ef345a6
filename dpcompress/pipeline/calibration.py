"""A table corrected by whole networks: what its ops cost where they really run.

In a network an op finds colder caches than in a loop of its own, and the network as a
whole does things that no span covers. The first makes every op slower by about the same
factor, the second adds a constant. A few whole networks tell them apart.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import nn

from dpcompress.blueprint import Blueprint
from dpcompress.latency import bench_networks, engine_of
from dpcompress.latency.fidelity import spread_plans
from dpcompress.pipeline.fidelity import merged_onnx
from dpcompress.progress import Progress, silent
from dpcompress.tables import LatencyTable

_LEAST_CONTRAST = 0.1
"""Of the original's own rows: with less between fastest and slowest, a factor cannot be
told from noise, and the table stays as it is."""


def calibrate(
    table: LatencyTable,
    network: nn.Module,
    blueprint: Blueprint,
    *,
    count: int = 3,
    progress: Progress = silent,
) -> LatencyTable:
    """`table` with rows times a factor c and a fixed part F, so that c·Σ rows + F fits
    `count` networks, from the fastest plan to the original, measured interleaved.

    Recorded in the header: calibration (c), fixed_ms (F), e2e_ms (the original as it
    was measured here), calibration_error (the fit's worst relative residual).
    """
    header = table.header
    plans = spread_plans(blueprint, table, count)
    networks = {}
    for done, plan in enumerate(plans):
        progress(done, len(plans), "build")
        networks[str(done)] = merged_onnx(network, plan, int(header["batch"]))
    times = bench_networks(
        networks,
        **engine_of(table),
    )
    progress(len(plans), len(plans))
    measured = np.array([times[str(n)].median_ms for n in range(len(plans))])
    sums = np.array([(plan.latency_ms or 0.0) - table.fixed_ms for plan in plans])
    original = max(range(len(plans)), key=lambda n: len(plans[n].spans))
    if np.ptp(sums) < _LEAST_CONTRAST * sums[original]:
        return table
    factor, fixed_ms = fit(sums, measured)
    frame = table.frame.copy()
    frame[["latency_ms", "spread_ms"]] = (
        frame[["latency_ms", "spread_ms"]] * factor
    ).round(6)
    residual = np.abs(factor * sums + fixed_ms - measured) / measured
    corrected: dict[str, Any] = {
        **header,
        "e2e_ms": round(float(measured[original]), 6),
        "single_layers_ms": round(float(factor * sums[original]), 6),
        "fixed_ms": round(fixed_ms, 6),
        "calibration": round(factor, 4),
        "calibration_error": round(float(residual.max()), 4),
    }
    return LatencyTable(frame, corrected)


def fit(sums: np.ndarray, measured: np.ndarray) -> tuple[float, float]:
    """Factor and constant, neither below 0, of measured ≈ factor·sums + constant, by
    least squares of the relative errors."""
    weights = 1 / measured
    design = np.stack([sums * weights, weights], axis=1)
    factor, constant = np.linalg.lstsq(design, np.ones(len(sums)), rcond=None)[0]
    if constant < 0 or factor < 0:
        factor = float((sums * weights).sum() / np.square(sums * weights).sum())
        constant = 0.0
    return float(factor), float(constant)
