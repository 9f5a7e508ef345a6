"""The printout of a finished run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpcompress.cli.output import console, print_table

if TYPE_CHECKING:
    from dpcompress.pipeline import Result


def print_result(result: Result, folder: Path) -> None:
    """Print both networks side by side, and what that says about the prediction."""

    def row(name: str, side: Any) -> list[object]:
        timing = side.measured
        return [
            name,
            side.layers,
            f"{side.parameters:,}",
            f"{side.macs / 1e6:.1f} M",
            f"{side.accuracy:.2%}",
            "" if side.predicted_ms is None else f"{side.predicted_ms:.3f}",
            "" if side.corrected_ms is None else f"{side.corrected_ms:.3f}",
            f"{timing.median_ms:.3f}",
            f"{timing.p90_ms:.3f}",
            f"± {timing.spread_ms:.3f}",
        ]

    print_table(
        [
            "",
            "layers",
            "parameters",
            "MACs",
            "accuracy",
            "predicted ms",
            "corrected ms",
            "measured ms now",
            "p90",
            "spread",
        ],
        [row("original", result.original), row("compressed", result.compressed)],
    )
    for sentence in result.sentences:
        print(sentence)
    for warning in result.warnings:
        console.print(warning, style="yellow")
    console.print(f"{folder / 'compressed.onnx'}: the network to deploy", soft_wrap=True)
    console.print(
        f"{folder}: tables, plan, weights, certificate, pictures", soft_wrap=True
    )
