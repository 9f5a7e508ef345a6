"""The steps that runs of `compress` and of `shrink` have in common."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from dpcompress.blueprint import Blueprint, Span, keep_everything
from dpcompress.exporters import check_onnx, export
from dpcompress.graph import build, merge, trace
from dpcompress.latency import bench, profile
from dpcompress.models import Origin, save_weights, weights_digest
from dpcompress.pipeline.closed_loop import Loop
from dpcompress.pipeline.folder import Original, RunFolder
from dpcompress.pipeline.result import Result, Side, Speedup, Timing, macs, parameters
from dpcompress.pipeline.steps import Bars, Step
from dpcompress.pipeline.whole_networks import calibrate, uncorrected_ms
from dpcompress.tables import LatencyTable
from dpcompress.training import check_above_chance, evaluate, finetune

_CHECK_IMAGES = 1024
_CERTIFICATE_IMAGES = 16


def train_original(run: RunFolder[Any], bars: Bars) -> None:
    """Load or train the original network; refuse one that is near chance."""
    settings, data = run.settings, run.data
    torch.manual_seed(settings.seed)
    network = run.new_network(settings.weights)
    if settings.pretrain is not None:
        with bars("Train the original") as progress:
            finetune(
                network,
                data,
                settings.pretrain,
                checkpoint=run.path / "original.checkpoint",
                validate=False,
                progress=progress,
            )
    heldout = evaluate(network, data.heldout)
    check_above_chance(heldout, len(data.classes))
    state = network.state_dict()
    origin = Origin(form="original", original=weights_digest(state))
    save_weights(run.to_write("original.safetensors"), state, origin)
    run.original = Original(
        data=data.description, heldout=heldout, test=evaluate(network, data.test)
    )


def trace_original(run: RunFolder[Any], bars: Bars) -> None:
    """Describe the original as a Blueprint."""
    settings = run.settings
    run.blueprint = trace(run.original_network(), settings.input, settings.limits)


def export_original(run: RunFolder[Any], bars: Bars) -> None:
    """Write the original as ONNX just as merged networks are, norms folded, so that the
    comparison is fair; check the file on test images."""
    settings = run.settings
    network = build(run.original_network(), keep_everything(run.blueprint))
    data = export(network, settings.input, settings.target.batch)
    check_onnx(data, network, _check_images(run))
    run.original_onnx = data


def profile_layers(run: RunFolder[Any], bars: Bars) -> None:
    """Measure the latency table, or take the one that was given."""
    settings, blueprint = run.settings, run.blueprint
    if settings.latency is not None:
        table = LatencyTable.read(settings.latency)
        table.require(blueprint.digest)
    else:
        title = f"Time the layers on {settings.target.engine}"
        with run.store() as store, bars(title) as progress:
            table = profile(
                blueprint,
                original=run.original_onnx,
                target=settings.target,
                store=store,
                progress=progress,
            )
        with bars("Calibrate on whole networks") as progress:
            table = calibrate(table, run.original_network(), blueprint, progress=progress)
    run.latency = table


def merge_trained(run: RunFolder[Any], bars: Bars) -> None:
    """Merge the fine-tuned network, with a certificate, and export it."""
    images = _check_images(run)
    linearized = run.linearized_network("finetuned.safetensors")
    network, run.certificate = merge(linearized, images[:_CERTIFICATE_IMAGES])
    write_merged(run, network, linearized)


def write_merged(run: RunFolder[Any], network: nn.Module, expected: nn.Module) -> None:
    """Write the weights and the ONNX of the merged network; the ONNX must compute what
    `expected` does."""
    data = export(network, run.settings.input, run.settings.target.batch)
    run.export_check = check_onnx(data, expected, _check_images(run))
    run.save_network(network, "merged.safetensors", "merged")
    run.compressed_onnx = data


def _check_images(run: RunFolder[Any]) -> Tensor:
    """Test images on which an exported network is compared with its module."""
    return run.data.test.first(_CHECK_IMAGES)


def bench_networks(run: RunFolder[Any], bars: Bars) -> None:
    """Time the original and the compressed network side by side; sum up the run."""
    settings, plan = run.settings, run.plan
    files = {"original": run.original_onnx, "compressed": run.compressed_onnx}
    with bars("Time both networks") as progress:
        times = bench(files, settings.target, progress=progress)
    original, network = run.original_network(), run.merged_network("merged.safetensors")
    test = evaluate(network, run.data.test)
    table = run.latency if run.has("latency.csv") else None
    loop = run.closed_loop if run.has("closed_loop.json") else None
    run.result = Result.of(
        original=Side(
            layers=run.blueprint.depth,
            parameters=parameters(original),
            macs=macs(original, settings.input),
            accuracy=run.original.test.accuracy,
            measured=Timing.of(times["original"]),
            **_predictions(table, _table_ms(table, run.blueprint)),
        ),
        compressed=Side(
            layers=len(plan.spans),
            parameters=parameters(network),
            macs=macs(network, settings.input),
            accuracy=test.accuracy,
            measured=Timing.of(times["compressed"]),
            **_predictions(table, plan.predicted_ms, loop),
        ),
        original_then_ms=None if table is None else table.original_ms,
        test_images=test.count,
        speedup=Speedup.of(times["original"], times["compressed"]),
        loop=loop,
        budget_ms=plan.budget_ms,
        engine=settings.target.engine,
        batch=settings.target.batch,
        threads=settings.target.threads,
    )


def _table_ms(table: LatencyTable | None, blueprint: Blueprint) -> float | None:
    """Sum the table's rows of the original's layers, and the fixed part."""
    if table is None:
        return None
    times = table.span_times(blueprint)
    layers = [Span(stop - 1, stop) for stop in range(1, blueprint.depth + 1)]
    if not times.keys() >= {*layers}:
        return None
    return table.fixed_ms + sum(times[layer] for layer in layers)


def _predictions(
    table: LatencyTable | None, predicted_ms: float | None, loop: Loop | None = None
) -> dict[str, float | None]:
    """Return the fields of a `Side` that are not measured.

    Args:
        predicted_ms: the sum of the network's rows of `table`, and the fixed part.
        loop: the one in which the network was measured.
    """
    before_ms = None
    if table is not None and predicted_ms is not None:
        before_ms = uncorrected_ms(table, predicted_ms)
    return {
        "uncorrected_ms": before_ms,
        "predicted_ms": predicted_ms,
        "corrected_ms": None if loop is None else loop.chosen.corrected_ms,
    }


TRAIN = Step(
    "original",
    train_original,
    makes=("original.safetensors", "original.json"),
    settings=("model", "model_args", "weights", "pretrain", "input", "seed"),
    external=("weights", "data"),
    scratch=("original.checkpoint",),
)
TRACE = Step(
    "trace", trace_original, makes=("blueprint.json",), settings=("input", "limits")
)
EXPORT = Step(
    "export original",
    export_original,
    makes=("original.onnx",),
    settings=("input", "target"),
)
PROFILE = Step(
    "profile",
    profile_layers,
    makes=("latency.csv",),
    settings=("target", "latency"),
    external=("latency",),
    # Latency does not depend on the weights, so a retrained original keeps its table.
    ignores=("original.onnx", "original.safetensors"),
)
MERGE = Step(
    "merge",
    merge_trained,
    makes=("certificate.json", "export.json", "merged.safetensors", "compressed.onnx"),
    settings=("input", "target"),
)
BENCH = Step(
    "bench",
    bench_networks,
    makes=("result.json",),
    settings=("target",),
    version=4,
)
