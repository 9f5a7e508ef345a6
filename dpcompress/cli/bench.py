"""``dpcompress bench``: networks timed side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dpcompress.cli.files import Json
from dpcompress.cli.output import emit, print_breakdown, print_table, progress_bar
from dpcompress.errors import BadInput, UsageError

if TYPE_CHECKING:
    from dpcompress.runner import Measurement, Target
    from dpcompress.settings import INPUT_FIELD, Panel, Shown, Size, TargetOptions

_ENGINE_OF = {".engine": "tensorrt", ".plan": "tensorrt", ".xml": "openvino"}


def bench(
    networks: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE_OR_MODEL...",
            help="ONNX files, TensorRT engines (.engine, .plan), OpenVINO files (.xml), "
            "or models (torchvision:NAME, timm:NAME, path.py:factory) with random "
            "weights. Speed-ups are relative to the first.",
        ),
    ],
    target: TargetOptions,
    input: Annotated[Size | None, Shown("CxHxW", Panel.MODEL), INPUT_FIELD] = None,
    json: Json = False,
) -> None:
    """Time networks side by side: interleaved, in one process.

    A time is per inference of a whole batch. spread is half the interquartile range of
    the samples; the speed-up is the median over rounds in which both ran, with its
    95 % confidence interval. --input and --batch are for models; a file has its own.
    On TensorRT times are the GPU's own; a second table splits an inference into parts.

    \b
    Examples:
      dpcompress bench run/original.onnx run/compressed.onnx
      dpcompress bench original.engine merged.engine --engine tensorrt --precision fp16
    """
    from dpcompress.latency import bench

    graphs = {name: _read(name, input, target) for name in networks}
    inputs = {name: _input_of(name, graph) for name, graph in graphs.items()}
    parts: dict[str, dict[str, float]] = {}
    with progress_bar("bench") as progress:
        times = bench(graphs, target, progress=progress, breakdowns=parts)
    first = times[networks[0]]
    rows = [
        {"network": name, "input": inputs[name], **_facts(time, first), **parts[name]}
        for name, time in times.items()
    ]
    if json:
        known = {"engine": target.engine, "precision": target.precision}
        emit({**known, "networks": rows})
        return
    columns = ("network", "input", "median ms", "p90 ms", "spread ms", "speed-up", "95 %")
    print_table(
        columns,
        [
            (
                row["network"],
                row["input"],
                row["median_ms"],
                row["p90_ms"],
                row["spread_ms"],
                row["speedup"],
                f"{row['speedup_low']:.3g} to {row['speedup_high']:.3g}",
            )
            for row in rows
        ],
    )
    if all(parts.values()):
        print_breakdown(parts)


def _facts(time: Measurement, first: Measurement) -> dict[str, Any]:
    from dpcompress.runner import ratio

    faster = ratio(first, time)
    return {
        "median_ms": time.median_ms,
        "p90_ms": time.p90_ms,
        "spread_ms": time.spread_ms,
        "samples": time.samples,
        "speedup": faster.median,
        "speedup_low": faster.low,
        "speedup_high": faster.high,
    }


def _read(name: str, size: Size | None, target: Target) -> bytes | Path:
    """Return a network as ONNX, or the path of a file that only its engine reads."""
    owner = _ENGINE_OF.get(Path(name).suffix)
    if owner is not None:
        if target.engine.partition(":")[0] != owner:
            raise UsageError(f"{name} is a file of {owner}.", f"Add --engine {owner}.")
        return Path(name)
    if name.endswith(".onnx"):
        try:
            return Path(name).read_bytes()
        except OSError as error:
            raise BadInput(
                f"{name} cannot be read: {error.strerror}.", "Check the path."
            ) from error
    from dpcompress.exporters import export
    from dpcompress.models import default_input, load_model

    return export(load_model(name), size or default_input(name), target.batch)


def _input_of(name: str, graph: bytes | Path) -> str:
    """Format an input's shape, '32x3x224x224'; '' for an engine's own file."""
    if isinstance(graph, Path):
        return ""
    from dpcompress.onnxio.model import input_shapes, parse

    try:
        first = next(iter(input_shapes(parse(graph)).values()), ())
    except BadInput as error:
        raise BadInput(f"{name}: {error.message}", error.remedy) from error
    return "x".join(map(str, first))
