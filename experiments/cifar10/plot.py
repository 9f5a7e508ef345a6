"""Draws RUN/results.csv: accuracy against measured speed-up, one line per method.

    python -m experiments cifar10.plot RUN/results.csv comparison.png

Bars are standard errors over the seeds; there are none with one seed.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib
import pandas as pd
from cycler import cycler
from matplotlib.figure import Figure

from dpcompress.files import write_bytes
from dpcompress.report.figure import to_png


def summary(results: pd.DataFrame) -> pd.DataFrame:
    """Mean and standard error of each method at each budget, in budget order."""
    groups = results.groupby(["method", "budget"], sort=False)
    table = groups.agg(
        speedup=("speedup", "mean"),
        accuracy=("accuracy", "mean"),
        error=("accuracy", "sem"),
        seeds=("seed", "nunique"),
        train_seconds=("train_seconds", "mean"),
    )
    return table.reset_index()


def plot(results: pd.DataFrame) -> bytes:
    """PNG."""
    figure = Figure(figsize=(9, 5), layout="constrained")
    axes = figure.subplots()
    colours = matplotlib.colormaps["tab20"].colors  # type: ignore[attr-defined]
    axes.set_prop_cycle(cycler(color=colours[::2] + colours[1::2]))
    for method, rows in summary(results).groupby("method", sort=False):
        axes.errorbar(
            rows["speedup"],
            100 * rows["accuracy"],
            yerr=100 * rows["error"].fillna(0),
            marker="os^Dv<>P"[len(axes.containers) % 8],
            markersize=4,
            capsize=3,
            label=str(method),
        )
    axes.set_xlabel("measured speed-up")
    axes.set_ylabel("test accuracy, %")
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper", fontsize=8)
    return to_png(figure)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results", type=Path)
    parser.add_argument("picture", type=Path)
    options = parser.parse_args()
    results = pd.read_csv(options.results)
    write_bytes(options.picture, plot(results))
    print(summary(results).to_string(index=False))


if __name__ == "__main__":
    main()
