"""The check of a latency table: predicted against measured networks."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from dpcompress.report.figure import CHOSEN, KEPT, to_png


def plot_predictions(
    *,
    predicted_ms: Sequence[float],
    measured_ms: Sequence[float],
    spread_ms: Sequence[float],
    title: str,
) -> bytes:
    """Draw predicted over measured times as PNG; the line is a perfect prediction.

    Args:
        spread_ms: error bars of the measured times.
    """
    figure = Figure(figsize=(5, 5), layout="constrained")
    axes = figure.subplots()
    top = 1.05 * max(*predicted_ms, *measured_ms)
    axes.plot([0, top], [0, top], color=CHOSEN, linewidth=1)
    axes.errorbar(
        measured_ms, predicted_ms, xerr=spread_ms, fmt="o", markersize=4, color=KEPT
    )
    axes.set_xlim(0, top)
    axes.set_ylim(0, top)
    axes.set_xlabel("measured, ms")
    axes.set_ylabel("predicted, ms")
    axes.set_title(title, fontsize=10)
    return to_png(figure)
