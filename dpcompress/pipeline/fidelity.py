"""A table put to the test: whole merged networks are built and measured."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from torch import nn

from dpcompress.blueprint import Blueprint, Plan
from dpcompress.exporters import export
from dpcompress.files import write_bytes, write_text
from dpcompress.graph import build
from dpcompress.latency import bench
from dpcompress.latency.correction import corrected
from dpcompress.latency.fidelity import CheckRun, Fidelity
from dpcompress.progress import Progress, silent
from dpcompress.report.figure import CHOSEN, KEPT, to_png
from dpcompress.runner import NETWORKS, Measurement, Sampling
from dpcompress.solver import spread_plans
from dpcompress.tables import LatencyTable

_SECONDS_EACH = 3.0
"""For each network of a check. Measured for 20 s altogether, 45 networks kept their order
from one run to the next no better (Kendall's tau 0.84 to 0.92) than tables predict it."""


def thorough(networks: int) -> Sampling:
    """Enough to judge a table by."""
    seconds = _SECONDS_EACH * networks
    return replace(NETWORKS, min_seconds=seconds, max_seconds=max(30.0, 2 * seconds))


def merged_onnx(network: nn.Module, plan: Plan, batch: int) -> bytes:
    """The merged network of `plan` as ONNX, without fine-tuning: for its latency."""
    assert plan.input is not None
    return export(build(network, plan), plan.input, batch)


def time_plans(
    network: nn.Module,
    plans: Sequence[Plan],
    latency: LatencyTable,
    *,
    sampling: Sampling = NETWORKS,
    progress: Progress = silent,
) -> list[Measurement]:
    """The merged networks of `plans`, measured interleaved on the engine, batch and
    threads that `latency` was made with.

    Raises:
        EngineUnavailable: that engine is not here.
    """
    target = latency.target
    networks = {}
    for done, plan in enumerate(plans):
        progress(done, len(plans), "build")
        networks[str(done)] = merged_onnx(network, plan, target.batch)
    times = bench(networks, target, sampling=sampling, progress=progress)
    return [times[str(n)] for n in range(len(plans))]


def check_table(
    network: nn.Module,
    blueprint: Blueprint,
    latency: LatencyTable,
    count: int,
    *,
    fitted: int = 5,
    seed: int = 0,
    sampling: Sampling | None = None,
    progress: Progress = silent,
) -> tuple[LatencyTable, Fidelity]:
    """Build `count` + `fitted` merged networks, evenly spread in predicted latency, and
    measure them interleaved. The `fitted` ones, from the fastest to the original,
    correct the table; the others tell what it is worth.

    Returns:
        The corrected table, and its predictions against what was measured.

    Raises:
        EngineUnavailable: the engine of `latency` is not here.
    """
    plans = spread_plans(blueprint, latency, count + fitted, seed)
    sampling = sampling or thorough(len(plans))
    times = time_plans(network, plans, latency, sampling=sampling, progress=progress)
    return judge(latency, plans, times, max(len(plans) - count, 0))


def judge(
    latency: LatencyTable,
    plans: Sequence[Plan],
    times: Sequence[Measurement],
    fitted: int,
) -> tuple[LatencyTable, Fidelity]:
    """`latency` corrected by `fitted` of the measured plans, from the fastest to the
    original, and its predictions of the others."""
    most = max(len(plan.spans) for plan in plans)
    pairs = sorted(
        zip(plans, times, strict=True),
        key=lambda pair: (len(pair[0].spans) == most, pair[0].predicted_ms),
    )
    plans, times = zip(*pairs, strict=True)
    sums = np.array([(plan.predicted_ms or 0.0) - latency.fixed_ms for plan in plans])
    measured = np.array([time.median_ms for time in times])
    fit_on = np.linspace(0, len(plans) - 1, fitted).round().astype(int)
    table = corrected(latency, sums[fit_on], measured[fit_on])
    factor = float(table.header.get("calibration", 1))
    runs = [
        CheckRun(
            boundaries=plan.boundaries,
            table_ms=latency.fixed_ms + float(sums[i]),
            predicted_ms=table.fixed_ms + factor * float(sums[i]),
            measured_ms=times[i].median_ms,
            spread_ms=times[i].spread_ms,
        )
        for i, plan in enumerate(plans)
        if i not in fit_on
    ]
    return table, Fidelity(tuple(runs))


def write_check(fidelity: Fidelity, table: Path) -> tuple[Path, Path]:
    """Write TABLE.check.json and TABLE.check.png beside the table; returns both paths."""
    name = table.name.removesuffix(".csv")
    data, picture = (table.with_name(f"{name}.check.{kind}") for kind in ("json", "png"))
    write_text(data, json.dumps(fidelity.to_data(), indent=1) + "\n")
    write_bytes(picture, plot_fidelity(fidelity))
    return data, picture


def plot_fidelity(fidelity: Fidelity) -> bytes:
    """Predicted against measured time, as PNG; the line is a perfect prediction."""
    figure = Figure(figsize=(5, 5), layout="constrained")
    axes = figure.subplots()
    measured = [run.measured_ms for run in fidelity.runs]
    top = 1.05 * max(measured + [run.predicted_ms for run in fidelity.runs])
    axes.plot([0, top], [0, top], color=CHOSEN, linewidth=1)
    axes.errorbar(
        measured,
        [run.predicted_ms for run in fidelity.runs],
        xerr=[run.spread_ms for run in fidelity.runs],
        fmt="o",
        markersize=4,
        color=KEPT,
    )
    axes.set_xlim(0, top)
    axes.set_ylim(0, top)
    axes.set_xlabel("measured, ms")
    axes.set_ylabel("predicted, ms")
    axes.set_title(
        f"mean error {fidelity.mean_error:.1%}, worst {fidelity.worst.error:+.1%}, "
        f"τ {fidelity.tau:.3f}",
        fontsize=10,
    )
    return to_png(figure)
