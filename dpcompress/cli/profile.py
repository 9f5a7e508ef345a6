"""``dpcompress profile``: measures the latency table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dpcompress.cli.options import (
    Batch,
    Device,
    Engine,
    Input,
    Json,
    MaxGrowth,
    MaxWeightMb,
    Model,
    ModelArgs,
    Precision,
    Threads,
    candidate_limits,
)
from dpcompress.cli.output import console, emit, progress_bar
from dpcompress.errors import UsageError

if TYPE_CHECKING:
    from dpcompress.tables import LatencyTable

StoreFile = Annotated[
    Path | None,
    typer.Option(
        "--store",
        metavar="FILE",
        help="Keeps every measurement, so that none is made twice: tables of other "
        "networks share it. Without it: the file that DPCOMPRESS_STORE names, else one "
        "in the user's cache folder.",
        show_default=False,
    ),
]


def profile(
    model: Model,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            help="The latency table to write (CSV).",
            show_default=False,
        ),
    ] = None,
    engine: Engine = "onnxruntime",
    model_args: ModelArgs = None,
    input: Input = None,
    batch: Batch = 1,
    threads: Threads = None,
    precision: Precision = "fp32",
    max_growth: MaxGrowth = None,
    max_weight_mb: MaxWeightMb = None,
    device: Device = None,
    store: StoreFile = None,
    bundle: Annotated[
        Path | None,
        typer.Option(
            "--bundle",
            metavar="B.zip",
            help="Measure nothing here: write all graphs that --engine would time into a "
            "zip for the runner, which needs numpy and an engine only (see `dpcompress "
            "runner`).",
            show_default=False,
        ),
    ] = None,
    results: Annotated[
        Path | None,
        typer.Option(
            "--results",
            metavar="R.jsonl",
            help="Measure nothing here: make the table of what the runner measured. "
            "Engine and batch are those of the results.",
            show_default=False,
        ),
    ] = None,
    check: Annotated[
        int,
        typer.Option(
            "--check",
            metavar="N",
            min=0,
            help="Then build 5 merged networks to correct the table, and N others, from "
            "the fastest to the original, and compare the table's predictions with "
            "their measured times. Writes OUTPUT.check.json and OUTPUT.check.png.",
        ),
    ] = 0,
    json: Json = False,
) -> None:
    """Measure what every candidate span costs on an engine, merged into one convolution.

    Spans of equal shape share one measurement. Each is timed inside a small frame of
    other layers, whose cost is taken off, so that the sum over a plan's spans predicts
    the network. Weights do not matter here, only shapes. What was cut off is resumed.
    Linux's real-time class is used if granted; DPCOMPRESS_REAL_TIME=0 forgoes it.

    \b
    Examples:
      dpcompress profile torchvision:mobilenet_v2 --input 3x32x32 --batch 32 -o T.csv
      dpcompress profile torchvision:mobilenet_v2 --bundle B.zip
      dpcompress profile torchvision:mobilenet_v2 --results R.jsonl -o T.csv
    """
    if bundle is not None and (output or results or check):
        raise UsageError(
            "--bundle only writes the bundle.", "Leave out --output, --results, --check."
        )
    if bundle is None and output is None:
        raise UsageError("Where does the table go?", "Give --output T.csv.")
    if results is not None and check:
        raise UsageError(
            "--check measures here, the results were measured elsewhere.",
            "Leave out one of them.",
        )
    import torch

    from dpcompress.blueprint import keep_everything
    from dpcompress.exporters import export
    from dpcompress.graph import build, trace
    from dpcompress.latency import Store, table_from_results, write_bundle
    from dpcompress.latency import profile as measure_table
    from dpcompress.latency.store import default_path
    from dpcompress.models import default_input, load_model
    from dpcompress.runner import Target

    target = Target(engine, device, precision, threads, batch)
    torch.manual_seed(0)  # the same graph each time: it need not be measured again
    network = load_model(model, None, dict(model_args or ()))
    shape = input or default_input(model)
    blueprint = trace(network, shape, candidate_limits(max_growth, max_weight_mb))
    if results is not None:
        table = table_from_results(blueprint, results)
    else:
        unchanged = build(network, keep_everything(blueprint))
        original = export(unchanged, shape, batch)
        if bundle is not None:
            with progress_bar("bundle") as progress:
                graphs = write_bundle(
                    blueprint,
                    bundle,
                    original=original,
                    target=target,
                    progress=progress,
                )
            size = bundle.stat().st_size
            if json:
                emit({"output": str(bundle), "graphs": graphs, "bytes": size})
            else:
                print(f"{bundle}: {graphs} graphs, {size / 1e6:.1f} MB")
            return
        known = Store(store or default_path())
        with known, progress_bar("profile") as progress:
            table = measure_table(
                blueprint,
                original=original,
                target=target,
                store=known,
                progress=progress,
            )
    assert output is not None
    table.write(output)
    summary = _summary(table, output)
    if not json:
        print(
            f"{output}: {summary['rows']} rows from {summary['ops']} measured ops. The "
            f"original takes {summary['e2e_ms']:.3f} ms, {summary['fixed_ms']:.3f} ms of "
            "it outside the layers."
        )
    if "rejected_ops" in table.header:
        console.print(
            f"{table.header['engine']} rejects these ops, so that no plan can use their "
            f"spans: {table.header['rejected_ops']}",
            style="yellow",
            markup=False,
        )
    if check:
        from dpcompress.pipeline.whole_networks import check_table, write_check

        with progress_bar("check") as progress:
            table, found = check_table(
                network, blueprint, table, check, progress=progress
            )
        table.write(output)
        write_check(found, output)
        summary |= _summary(table, output)
        summary["check"] = found.summary
        if not json:
            print(found.sentence)
    if json:
        emit(summary)


def _summary(table: LatencyTable, output: Path) -> dict[str, Any]:
    return {
        "output": str(output),
        "rows": len(table.frame),
        "ops": int(table.frame["op"].nunique()),
        **{
            key: float(table.header[key])
            for key in ("e2e_ms", "e2e_spread_ms", "single_layers_ms", "fixed_ms")
        },
    }
