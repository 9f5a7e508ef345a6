"""The built-in example with several seeds: does the compressed network keep up?

    python -m experiments digits.digits experiments/digits/digits.csv --runs FOLDER

Every seed trains its own original, measures its own table and makes its own plan. Killed
and called again with the same FOLDER, it goes on.
"""

from __future__ import annotations

import argparse
import csv
import platform
import statistics
from pathlib import Path

import onnxruntime
import torch

from dpcompress.cli.output import progress_bar
from dpcompress.pipeline import EXAMPLE, compress
from dpcompress.settings import seeded


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("output", type=Path)
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    rows = []
    for seed in range(arguments.seeds):
        result = compress(
            seeded(EXAMPLE, seed), arguments.runs / f"seed{seed}", progress_bar
        )
        compressed, expected_ms = result.compressed, result.expected_ms
        assert compressed.uncorrected_ms and compressed.predicted_ms
        assert compressed.corrected_ms and expected_ms
        assert result.prediction_error is not None and result.loop is not None
        rows.append(
            {
                "seed": seed,
                "layers": compressed.layers,
                "original_accuracy": round(result.original.accuracy, 4),
                "accuracy": round(compressed.accuracy, 4),
                "original_ms": round(result.original.measured.median_ms, 3),
                "uncorrected_ms": round(compressed.uncorrected_ms, 3),
                "predicted_ms": round(compressed.predicted_ms, 3),
                "corrected_ms": round(compressed.corrected_ms, 3),
                "expected_ms": round(expected_ms, 3),
                "measured_ms": round(compressed.measured.median_ms, 3),
                "spread_ms": round(compressed.measured.spread_ms, 3),
                "prediction_error": round(result.prediction_error, 4),
                "networks_measured": len(result.loop.trials),
                "speedup": round(result.speedup.median, 3),
                "speedup_low": round(result.speedup.low, 3),
                "speedup_high": round(result.speedup.high, 3),
                "test_images": result.test_images,
            }
        )
    with open(arguments.output, "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    changes = [100 * (r["accuracy"] - r["original_accuracy"]) for r in rows]
    print(
        f"{platform.machine()}, {result.threads} threads, Python "
        f"{platform.python_version()}, torch {torch.__version__}, ONNX Runtime "
        f"{onnxruntime.__version__}\naccuracy: {statistics.mean(changes):+.2f} %p on "
        f"average (standard deviation {statistics.stdev(changes):.2f})"
    )


if __name__ == "__main__":
    main()
