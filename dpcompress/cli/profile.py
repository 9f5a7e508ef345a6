"""``dpcompress profile``: measures the latency table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dpcompress.cli.options import (
    Batch,
    Engine,
    Input,
    Json,
    Model,
    ModelArgs,
    Precision,
    Threads,
)
from dpcompress.cli.output import emit, progress_bar


def profile(
    model: Model,
    output: Annotated[
        Path, typer.Option("-o", "--output", help="The latency table to write (CSV).")
    ],
    engine: Engine = "onnxruntime",
    model_args: ModelArgs = None,
    input: Input = None,
    batch: Batch = 1,
    threads: Threads = None,
    precision: Precision = "fp32",
    store: Annotated[
        Path | None,
        typer.Option(
            "--store",
            metavar="FILE",
            help="Keeps every measurement, so that none is made twice: tables of other "
            "networks share it. Without it: beside the table.",
            show_default=False,
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Measure what every candidate span costs on an engine, merged into one convolution.

    Spans of equal shape share one measurement. Each is timed inside a small frame of
    other layers, whose cost is taken off, so that the sum over a plan's spans predicts
    the network. Weights do not matter here, only shapes. What was cut off is resumed.

    \b
    Example:
      dpcompress profile torchvision:mobilenet_v2 --input 3x32x32 --batch 32 -o T.csv
    """
    from dpcompress.blueprint import keep_everything
    from dpcompress.exporters import export_onnx
    from dpcompress.graph import linearize, merge_unchecked, trace
    from dpcompress.latency import Store
    from dpcompress.latency import profile as measure_table
    from dpcompress.models import default_input, load_model

    network = load_model(model, None, dict(model_args or ()))
    shape = input or default_input(model)
    blueprint = trace(network, shape)
    unchanged = merge_unchecked(linearize(network, keep_everything(blueprint))).float()
    original = export_onnx(unchanged, shape, batch)
    known = Store(store or output.with_suffix(".sqlite"))
    with known, progress_bar("profile") as progress:
        table = measure_table(
            blueprint,
            original=original,
            engine=engine,
            batch=batch,
            threads=threads,
            precision=precision,
            store=known,
            progress=progress,
        )
    table.write(output)
    summary = {
        "output": str(output),
        "rows": len(table.frame),
        "ops": int(table.frame["op"].nunique()),
        **{
            key: float(table.header[key])
            for key in ("e2e_ms", "e2e_spread_ms", "single_layers_ms", "fixed_ms")
        },
    }
    if json:
        emit(summary)
    else:
        print(
            f"{output}: {summary['rows']} rows from {summary['ops']} measured ops. The "
            f"original takes {summary['e2e_ms']:.3f} ms, {summary['fixed_ms']:.3f} ms of "
            "it outside the layers."
        )
