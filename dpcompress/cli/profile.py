"""``dpcompress profile``: measures the latency table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dpcompress.cli.files import OUTPUT, Json, StoreFile
from dpcompress.cli.output import console, emit, progress_bar
from dpcompress.errors import UsageError

if TYPE_CHECKING:
    from pydantic import Field
    from torch import nn

    from dpcompress.blueprint import Blueprint
    from dpcompress.runner import Target
    from dpcompress.settings import LimitOptions, ModelOptions, Options, TargetOptions
    from dpcompress.tables import LatencyTable


def profile(
    model: Annotated[ModelOptions, Options("model", "model_args", "input")],
    target: TargetOptions,
    limits: LimitOptions,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            help="The latency table to write (CSV).",
            show_default=False,
            rich_help_panel=OUTPUT,
        ),
    ] = None,
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
            rich_help_panel=OUTPUT,
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
        Field(
            ge=0,
            description="Then build 5 merged networks to correct the table, and this "
            "many others, from the fastest to the original, and compare the table's "
            "predictions with their measured times. Writes OUTPUT.check.json and "
            "OUTPUT.check.png.",
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
    if results is not None and check:
        raise UsageError(
            "--check measures here, the results were measured elsewhere.",
            "Leave out one of them.",
        )
    if bundle is None and output is None:
        raise UsageError("Where does the table go?", "Give --output T.csv.")
    import torch

    from dpcompress.graph import trace
    from dpcompress.latency import table_from_results
    from dpcompress.models import default_input, load_model

    torch.manual_seed(0)  # the same graph each time: it need not be measured again
    network = load_model(model.model, None, model.model_args)
    size = model.input or default_input(model.model)
    blueprint = trace(network, size, limits)
    if bundle is not None:
        _write_bundle(bundle, network, blueprint, target, json)
        return
    assert output is not None
    if results is not None:
        table = table_from_results(blueprint, results)
    else:
        table = _measured(network, blueprint, target, store)
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

        with progress_bar("check") as bar:
            table, found = check_table(network, blueprint, table, check, progress=bar)
        table.write(output)
        write_check(found, output)
        summary |= _summary(table, output) | {"check": found.summary}
        if not json:
            print(found.sentence)
    if json:
        emit(summary)


def _original(network: nn.Module, blueprint: Blueprint, target: Target) -> bytes:
    """Export the original as merged networks are exported, norms folded."""
    from dpcompress.blueprint import keep_everything
    from dpcompress.exporters import export
    from dpcompress.graph import build

    unchanged = build(network, keep_everything(blueprint))
    return export(unchanged, blueprint.input, target.batch)


def _write_bundle(
    path: Path, network: nn.Module, blueprint: Blueprint, target: Target, json: bool
) -> None:
    from dpcompress.latency import write_bundle

    original = _original(network, blueprint, target)
    with progress_bar("bundle") as progress:
        graphs = write_bundle(
            blueprint, path, original=original, target=target, progress=progress
        )
    size = path.stat().st_size
    if json:
        emit({"output": str(path), "graphs": graphs, "bytes": size})
    else:
        print(f"{path}: {graphs} graphs, {size / 1e6:.1f} MB")


def _measured(
    network: nn.Module, blueprint: Blueprint, target: Target, store: Path | None
) -> LatencyTable:
    from dpcompress.latency import Store, profile
    from dpcompress.latency.store import default_path

    original = _original(network, blueprint, target)
    with Store(store or default_path()) as known, progress_bar("profile") as progress:
        return profile(
            blueprint, original=original, target=target, store=known, progress=progress
        )


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
