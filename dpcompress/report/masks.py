"""The history of a search for masks: which were on when, and their scores."""

from __future__ import annotations

import pandas as pd
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from dpcompress.report.figure import KEPT, REMOVED, to_png


def plot_masks(history: pd.DataFrame) -> bytes:
    """Draw a search as PNG: the scores of all masks, and below which masks were on.

    Args:
        history: as in `depthshrinker.Found`: columns done (0..1), mask, positions, score
            and on, one row per mask and moment.
    """
    scores = history.pivot(index="done", columns="mask", values="score")
    on = history.pivot(index="mask", columns="done", values="on")
    names = history.drop_duplicates("mask").set_index("mask")["positions"]
    kept = on.iloc[:, -1] == 1
    count = len(on)
    tall = min(max(1.5, 0.16 * count), 30.0)
    figure = Figure(figsize=(7, 2.8 + tall), layout="constrained")
    above, below = figure.subplots(
        2, 1, sharex=True, gridspec_kw={"height_ratios": [2.4, tall]}
    )
    for mask in sorted(on.index, key=lambda m: bool(kept[m])):  # the kept ones on top
        above.plot(
            scores.index,
            scores[mask],
            color=KEPT if kept[mask] else REMOVED,
            linewidth=1.2,
        )
    above.set_ylabel("score")
    above.set_title(f"{int(kept.sum())} of {count} masks kept (blue)", fontsize=10)
    above.spines[["top", "right"]].set_visible(False)
    below.imshow(
        on.to_numpy(),
        aspect="auto",
        interpolation="nearest",
        cmap=ListedColormap([REMOVED, KEPT]),
        vmin=0,
        vmax=1,
        extent=(0.0, 1.0, count - 0.5, -0.5),
    )
    below.set_yticks(range(count), names.tolist(), fontsize=6)
    below.set_ylabel("positions of a mask")
    below.set_xlabel("share of the search; blue: on")
    below.tick_params(length=0)
    return to_png(figure)
