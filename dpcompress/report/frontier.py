"""The frontier: the best importance for every latency, and the plan that was chosen."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from dpcompress.report.figure import CHOSEN, KEPT, REMOVED, to_png


def plot_frontier(
    latency_ms: Sequence[float],
    importance: Sequence[float],
    *,
    chosen: tuple[float, float] | None = None,
    budget_ms: float | None = None,
    original_ms: float | None = None,
    measured: bool = False,
) -> bytes:
    """Draw the plans of a frontier as PNG: importance over predicted latency.

    Args:
        latency_ms, importance: of each plan, both rising.
        chosen: (latency_ms, importance) of the plan that was chosen.
        budget_ms: the budget that it was chosen for.
        original_ms: the latency of the network before compression.
        measured: whether the latency in `chosen` was measured, not predicted.
    """
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.add_subplot()
    axes.step(latency_ms, importance, where="post", color=KEPT, linewidth=1.2)
    axes.plot(latency_ms, importance, ".", color=KEPT, markersize=4, label="best plans")
    for value, style, name in (
        (budget_ms, "--", "budget"),
        (original_ms, ":", "original network"),
    ):
        if value is not None:
            label = f"{name}, {value:.3g} ms"
            axes.axvline(value, color="#555", linestyle=style, linewidth=1, label=label)
    if chosen is not None:
        how = " measured" if measured else ""
        label = f"chosen, {chosen[0]:.3g} ms{how}"
        axes.plot(*chosen, "o", color=CHOSEN, markersize=8, label=label)
    axes.set_xlabel("predicted latency (ms)")
    axes.set_ylabel("importance (higher: more accuracy kept)")
    axes.grid(color=REMOVED, linewidth=0.5)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(framealpha=1, edgecolor="white", fontsize=8, loc="lower right")
    return to_png(figure)
