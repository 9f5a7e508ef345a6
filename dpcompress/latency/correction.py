"""A table corrected by whole networks: what its ops cost where they really run.

Whole networks do things that no span covers, and they were perhaps timed while the
machine was faster or slower than it was for the table. A few of them give one factor for
all rows and one constant.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dpcompress.tables import LatencyTable

_LEAST_CONTRAST = 0.1
"""Of the slowest network's rows: with less between fastest and slowest, a factor cannot
be told from noise, and the table stays as it is."""


def corrected(
    table: LatencyTable, sums: np.ndarray, measured: np.ndarray
) -> LatencyTable:
    """`table` with rows times a factor c and a fixed part F, so that c·Σ rows + F fits
    measured networks.

    Recorded in the header: calibration (c), fixed_ms (F), e2e_ms (the original as it was
    measured here), calibration_error (the fit's worst relative residual).

    Args:
        sums: Σ rows of each network, ms; the last one is the original.
        measured: what each took as a whole, ms.
    """
    if len(sums) < 2 or np.ptp(sums) < _LEAST_CONTRAST * sums.max():
        return table
    factor, fixed_ms = fit(sums, measured)
    frame = table.frame.copy()
    frame[["latency_ms", "spread_ms"]] = (
        frame[["latency_ms", "spread_ms"]] * factor
    ).round(6)
    residual = np.abs(factor * sums + fixed_ms - measured) / measured
    header: dict[str, Any] = {
        **table.header,
        "e2e_ms": round(float(measured[-1]), 6),
        "single_layers_ms": round(float(factor * sums[-1]), 6),
        "fixed_ms": round(fixed_ms, 6),
        "calibration": round(factor, 4),
        "calibration_error": round(float(residual.max()), 4),
    }
    return LatencyTable(frame, header)


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
