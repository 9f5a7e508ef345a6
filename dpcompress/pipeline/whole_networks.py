"""A latency table against whole networks: time them, correct the table, judge it.

Whole networks do things that no span covers, and they are perhaps timed while the machine
is faster or slower than it was for the table. A few of them give one factor for all rows
and one constant; others then tell how well the corrected sums predict.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from dpcompress.blueprint import Blueprint, Plan
from dpcompress.exporters import export
from dpcompress.files import write_bytes, write_text
from dpcompress.graph import build
from dpcompress.latency import bench
from dpcompress.progress import Progress, silent
from dpcompress.report import plot_predictions
from dpcompress.runner import NETWORKS, Measurement, NetworkTiming
from dpcompress.solver import spread_plans
from dpcompress.tables import LatencyTable

CORRECTING = 5  # networks that correct a table

# With less between the fastest and the slowest network than this share of the slowest,
# a factor cannot be told from noise, and the table stays as it is.
_LEAST_CONTRAST = 0.1

# With 20 s for 45 networks, two runs agreed in order no better (Kendall's tau 0.84 to
# 0.92) than tables agree with a run.
_SECONDS_EACH = 3.0


@dataclass(frozen=True)
class Prediction:
    """The predicted and the measured time of a network, end to end.

    predicted_ms: by the table as its ops were measured.
    corrected_ms: by the table as other networks corrected it.
    spread_ms: half the interquartile range of the measurement.
    """

    boundaries: tuple[int, ...]
    predicted_ms: float
    corrected_ms: float
    measured_ms: float
    spread_ms: float

    @property
    def error(self) -> float:
        """The error of corrected_ms relative to measured_ms, signed."""
        return self.corrected_ms / self.measured_ms - 1

    @property
    def uncorrected_error(self) -> float:
        """The error of predicted_ms relative to measured_ms, signed."""
        return self.predicted_ms / self.measured_ms - 1


@dataclass(frozen=True)
class Fidelity:
    """The errors of a table for networks that did not correct it; at least one."""

    networks: tuple[Prediction, ...]

    @property
    def mean_error(self) -> float:
        """The mean absolute error, relative to the measured time."""
        return float(np.mean([abs(network.error) for network in self.networks]))

    @property
    def worst(self) -> Prediction:
        """The network with the largest error."""
        return max(self.networks, key=lambda network: abs(network.error))

    @property
    def bias(self) -> float:
        """The mean signed error: above 0 the table predicts too much."""
        return float(np.mean([network.error for network in self.networks]))

    @property
    def tau(self) -> float:
        """The Kendall τ-b of predicted and measured order; nan without an order."""
        corrected = [network.corrected_ms for network in self.networks]
        return kendall(corrected, [network.measured_ms for network in self.networks])

    @property
    def summary(self) -> dict[str, Any]:
        """The statistics, as plain data."""
        uncorrected = [network.uncorrected_error for network in self.networks]
        return {
            "networks": len(self.networks),
            "mean_error": self.mean_error,
            "worst_error": self.worst.error,
            "bias": self.bias,
            "kendall_tau": self.tau,
            "uncorrected_mean_error": float(np.mean(np.abs(uncorrected))),
            "uncorrected_worst_error": float(max(uncorrected, key=abs)),
        }

    @property
    def sentence(self) -> str:
        """The summary in words."""
        return (
            f"{len(self.networks)} networks: the prediction is off by "
            f"{self.mean_error:.1%} on average, at worst by {self.worst.error:+.1%} "
            f"({self.worst.measured_ms:.3f} ms measured); Kendall's tau {self.tau:.3f}"
        )

    def to_data(self) -> dict[str, Any]:
        """The summary and all networks, as plain data."""
        runs = [asdict(network) for network in self.networks]
        return {**self.summary, "runs": runs}


def kendall(a: Sequence[float], b: Sequence[float]) -> float:
    """Compute Kendall's τ-b: 1 for equal order, −1 for opposite, nan if one is flat."""
    x, y = (np.sign(np.subtract.outer(values, values)) for values in (a, b))
    ties = np.sqrt((x * x).sum() * (y * y).sum())
    return float((x * y).sum() / ties) if ties else float("nan")


def merged_onnx(network: nn.Module, plan: Plan, batch: int) -> bytes:
    """The merged network of `plan` as ONNX, without fine-tuning: for its latency."""
    assert plan.input is not None
    return export(build(network, plan), plan.input, batch)


def time_plans(
    network: nn.Module,
    plans: Sequence[Plan],
    table: LatencyTable,
    *,
    timing: NetworkTiming = NETWORKS,
    progress: Progress = silent,
) -> list[Measurement]:
    """Measure the merged networks of `plans`, interleaved, on the target of `table`.

    Raises:
        EngineUnavailable: that engine is not here.
    """
    target = table.target
    networks = {}
    for done, plan in enumerate(plans):
        progress(done, len(plans), "build")
        networks[str(done)] = merged_onnx(network, plan, target.batch)
    times = bench(networks, target, timing=timing, progress=progress)
    return [times[str(number)] for number in range(len(plans))]


def calibrate(
    table: LatencyTable,
    network: nn.Module,
    blueprint: Blueprint,
    *,
    count: int = CORRECTING,
    progress: Progress = silent,
) -> LatencyTable:
    """Correct `table` by `count` networks, from the fastest plan to the original.

    Raises:
        EngineUnavailable: the engine of `table` is not here.
    """
    plans = spread_plans(blueprint, table, count)
    times = time_plans(network, plans, table, progress=progress)
    return judge(table, plans, times, count)[0]


def check_table(
    network: nn.Module,
    blueprint: Blueprint,
    table: LatencyTable,
    count: int,
    *,
    correcting: int = CORRECTING,
    seed: int = 0,
    timing: NetworkTiming | None = None,
    progress: Progress = silent,
) -> tuple[LatencyTable, Fidelity]:
    """Correct `table` by `correcting` networks, and judge it by `count` others. All are
    evenly spread in predicted latency and measured interleaved.

    Returns:
        The corrected table, and its predictions of the others.

    Raises:
        EngineUnavailable: the engine of `table` is not here.
    """
    plans = spread_plans(blueprint, table, count + correcting, seed)
    timing = timing or thorough(len(plans))
    times = time_plans(network, plans, table, timing=timing, progress=progress)
    return judge(table, plans, times, max(len(plans) - count, 0))


def thorough(networks: int) -> NetworkTiming:
    """Make a timing that is long enough to judge a table by this many networks."""
    seconds = _SECONDS_EACH * networks
    return replace(NETWORKS, min_seconds=seconds, max_seconds=max(30.0, 2 * seconds))


def judge(
    table: LatencyTable,
    plans: Sequence[Plan],
    times: Sequence[Measurement],
    correcting: int,
) -> tuple[LatencyTable, Fidelity]:
    """Correct `table` by `correcting` of the measured plans, evenly from the fastest to
    the original, and compare its predictions of the others with their times.

    Args:
        plans: with the predictions of `table`; the one with most spans is the original.
    """
    most = max(len(plan.spans) for plan in plans)
    pairs = sorted(
        zip(plans, times, strict=True),
        key=lambda pair: (len(pair[0].spans) == most, pair[0].predicted_ms),
    )
    sums = np.array([(plan.predicted_ms or 0.0) - table.fixed_ms for plan, _ in pairs])
    measured = np.array([time.median_ms for _, time in pairs])
    chosen = np.linspace(0, len(pairs) - 1, correcting).round().astype(int)
    corrected = correct(table, sums[chosen], measured[chosen])
    factor = float(corrected.header.get("calibration", 1))
    others = [
        Prediction(
            boundaries=plan.boundaries,
            predicted_ms=table.fixed_ms + float(sums[i]),
            corrected_ms=corrected.fixed_ms + factor * float(sums[i]),
            measured_ms=time.median_ms,
            spread_ms=time.spread_ms,
        )
        for i, (plan, time) in enumerate(pairs)
        if i not in chosen
    ]
    return corrected, Fidelity(tuple(others))


def correct(table: LatencyTable, sums: np.ndarray, measured: np.ndarray) -> LatencyTable:
    """Multiply the rows of `table` by a factor c and give it a fixed part F, so that
    c · Σ rows + F comes close to measured networks. Too little contrast between these
    leaves the table as it is.

    Recorded in the header: calibration (c), fixed_ms (F), e2e_ms and single_layers_ms
    (the original, measured and as c · Σ rows), calibration_error (the worst relative
    residual); uncorrected_fixed_ms and uncorrected_e2e_ms keep what was there before.

    Args:
        sums: Σ rows of each network, ms; the last one is the original.
        measured: what each took as a whole, ms.
    """
    if len(sums) < 2 or np.ptp(sums) < _LEAST_CONTRAST * sums.max():
        return table
    factor, fixed_ms = factor_and_constant(sums, measured)
    columns = ["latency_ms", "spread_ms"]
    frame = table.frame.copy()
    frame[columns] = (frame[columns] * factor).round(6)
    residual = np.abs(factor * sums + fixed_ms - measured) / measured
    header: dict[str, Any] = {
        **table.header,
        "e2e_ms": round(float(measured[-1]), 6),
        "single_layers_ms": round(float(factor * sums[-1]), 6),
        "fixed_ms": round(fixed_ms, 6),
        "calibration": round(factor, 6),
        "calibration_error": round(float(residual.max()), 4),
        "uncorrected_fixed_ms": table.fixed_ms,
    }
    if table.e2e_ms is not None:
        header["uncorrected_e2e_ms"] = table.e2e_ms
    return LatencyTable(frame, header)


def is_corrected(table: LatencyTable) -> bool:
    """Whether whole networks corrected the table."""
    return "calibration" in table.header


def uncorrected_ms(table: LatencyTable, corrected_ms: float) -> float | None:
    """Compute what a table predicted before whole networks corrected it.

    Args:
        corrected_ms: what it predicts now.

    Returns:
        The same for a table that was not corrected; None for one that was corrected by a
        release that did not keep the fixed part.
    """
    if not is_corrected(table):
        return corrected_ms
    if "uncorrected_fixed_ms" not in table.header:
        return None
    rows_ms = (corrected_ms - table.fixed_ms) / float(table.header["calibration"])
    return rows_ms + float(table.header["uncorrected_fixed_ms"])


def factor_and_constant(sums: np.ndarray, measured: np.ndarray) -> tuple[float, float]:
    """The factor and the constant, neither below 0, of measured ≈ factor · sums +
    constant, by least squares of the relative errors."""
    weights = 1 / measured
    design = np.stack([sums * weights, weights], axis=1)
    factor, constant = np.linalg.lstsq(design, np.ones(len(sums)), rcond=None)[0]
    if constant < 0 or factor < 0:
        factor = float((sums * weights).sum() / np.square(sums * weights).sum())
        constant = 0.0
    return float(factor), float(constant)


def write_check(fidelity: Fidelity, table: Path) -> tuple[Path, Path]:
    """Write TABLE.check.json and TABLE.check.png beside the table; returns both paths."""
    name = table.name.removesuffix(".csv")
    data = table.with_name(f"{name}.check.json")
    picture = table.with_name(f"{name}.check.png")
    write_text(data, json.dumps(fidelity.to_data(), indent=1) + "\n")
    networks = fidelity.networks
    plot = plot_predictions(
        predicted_ms=[network.corrected_ms for network in networks],
        measured_ms=[network.measured_ms for network in networks],
        spread_ms=[network.spread_ms for network in networks],
        title=f"mean error {fidelity.mean_error:.1%}, worst {fidelity.worst.error:+.1%}, "
        f"τ {fidelity.tau:.3f}",
    )
    write_bytes(picture, plot)
    return data, picture
