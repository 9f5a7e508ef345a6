"""``dpcompress score``: the importance table of a trained network."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from dpcompress.cli.options import (
    Crop,
    Data,
    Input,
    Json,
    MaxGrowth,
    MaxWeightMb,
    Mean,
    Model,
    ModelArgs,
    Resize,
    Seed,
    Std,
    Weights,
    candidate_limits,
)
from dpcompress.cli.output import console, emit, progress_bar
from dpcompress.errors import UsageError

if TYPE_CHECKING:
    from dpcompress.importance.workers import Executor
    from dpcompress.settings import Metric

_METRICS = ("loss", "accuracy", "logits")
_ESTIMATORS = ("finetune", "fit")
_EXECUTORS = ("local", "ray")


def score(
    model: Model,
    data: Data,
    output: Annotated[Path, typer.Option("-o", "--output", help="The table to write.")],
    weights: Weights = None,
    model_args: ModelArgs = None,
    input: Input = None,
    resize: Resize = None,
    crop: Crop = None,
    mean: Mean = None,
    std: Std = None,
    latency: Annotated[
        Path | None,
        typer.Option(
            "--latency",
            metavar="T.csv",
            exists=True,
            dir_okay=False,
            help="Latency table, as written by profile: spans that are faster in parts "
            "need no score, which saves about half of the work.",
            show_default=False,
        ),
    ] = None,
    max_growth: MaxGrowth = None,
    max_weight_mb: MaxWeightMb = None,
    estimator: Annotated[
        str,
        typer.Option(
            "--estimator",
            help="'finetune' trains every span for a few steps, as published; 'fit' "
            "replaces it by one convolution fitted to unlabelled images: faster, and "
            "what `compress --train none` builds.",
        ),
    ] = "finetune",
    fit_images: Annotated[
        int | None,
        typer.Option(
            "--images",
            min=16,
            help="Images that 'fit' fits on. Without it: 512.",
            show_default=False,
        ),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(
            "--steps",
            min=1,
            help="Steps of fine-tuning per span. More steps rank the spans "
            "better. Without it: 10; 64 of 64 images ranked CIFAR-10's well.",
            show_default=False,
        ),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            "--batch-size",
            min=2,
            help="Images per step. Without it: 32.",
            show_default=False,
        ),
    ] = None,
    lr: Annotated[
        float | None,
        typer.Option(
            "--lr", help="Highest learning rate. Without it: 0.04.", show_default=False
        ),
    ] = None,
    metric: Annotated[
        str,
        typer.Option(
            "--metric",
            help="What a span's importance is: the change of held-out 'loss' (finer "
            "where images are few) or 'accuracy' (as published), or, of 'fit', how far "
            "the outputs move ('logits', without labels).",
        ),
    ] = "loss",
    alpha: Annotated[
        float | None,
        typer.Option(
            "--alpha",
            min=0,
            help="Normalisation: every importance is reduced by ALPHA times the mean "
            "over single layers. Published: 1.2 to 1.6. Without it: 1.2 where they are "
            "renewed, else 1.",
            show_default=False,
        ),
    ] = None,
    renew: Annotated[
        bool | None,
        typer.Option(
            "--renew/--no-renew",
            help="Whether single layers start from new weights, as published, which "
            "takes hundreds of steps to make up for. Without it: from 200 --steps on.",
            show_default=False,
        ),
    ] = None,
    executor: Annotated[
        str,
        typer.Option(
            "--executor",
            help="'local' processes, or those of a 'ray' cluster (extra ray).",
        ),
    ] = "local",
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers",
            min=1,
            help="Processes, one thread each. Without it: one per core, or per GPU. The "
            "table does not depend on it.",
            show_default=False,
        ),
    ] = None,
    journal: Annotated[
        Path | None,
        typer.Option(
            "--journal",
            help="Finished scores, reused by a later call with the same network, data "
            "and recipe. Without it: OUTPUT.journal.jsonl.",
            show_default=False,
        ),
    ] = None,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Score how much accuracy each span's activations are worth.

    For every span the activations inside are removed, the network is fine-tuned for a
    few steps, or the span is fitted, and held-out training images tell what that did;
    the test images are never looked at. Interrupted, the same command goes on where it
    was.

    \b
    Example:
      dpcompress score torchvision:mobilenet_v2 --model-args num_classes=10 \\
        --weights trained.safetensors --input 3x32x32 --data digits \\
        --latency T.csv -o I.csv
    """
    for name, value, known in (
        ("estimator", estimator, _ESTIMATORS),
        ("metric", metric, _METRICS),
        ("executor", executor, _EXECUTORS),
    ):
        if value not in known:
            raise UsageError(
                f"There is no {name} {value}.", f"Choose {' or '.join(known)}."
            )
    training = {
        "--steps": steps,
        "--batch-size": batch_size,
        "--lr": lr,
        "--no-renew" if renew is False else "--renew": renew,
    }
    other = training if estimator == "fit" else {"--images": fit_images}
    unused = [name for name, value in other.items() if value is not None]
    if unused:
        raise UsageError(
            f"The estimator {estimator} has no {unused[0]}.", "Leave it out."
        )
    from dpcompress.cli.trained import Preparation, load_trained
    from dpcompress.graph import trace
    from dpcompress.importance import Estimator, Finetune, Fit, worth_scoring
    from dpcompress.importance import score as score_network
    from dpcompress.tables import LatencyTable

    preparation = Preparation(resize, crop, mean, std)
    network, images = load_trained(model, weights, model_args, input, data, preparation)
    limits = candidate_limits(max_growth, max_weight_mb)
    spans = None
    if latency is None:
        blueprint = trace(network, images.train.size, limits)
    else:
        times = LatencyTable.read(latency)
        if times.limits is not None and limits not in (
            candidate_limits(None, None),
            times.limits,
        ):
            raise UsageError(
                f"{latency} was made with other limits of candidate spans.",
                "Leave out --max-growth and --max-weight-mb: the table has them.",
            )
        blueprint = trace(network, images.train.size, times.limits or limits)
        times.require(blueprint.digest)
        spans = worth_scoring(blueprint, times)
    chosen: Estimator
    if estimator == "fit":
        chosen = Fit(images=fit_images or Fit().images, seed=seed)
    else:
        asked = {"steps": steps, "batch_size": batch_size, "lr": lr, "seed": seed}
        changes = {name: value for name, value in asked.items() if value is not None}
        recipe = Finetune().recipe.model_dump() | changes
        chosen = Finetune(type(Finetune().recipe).model_validate(recipe), renew=renew)
    journal = journal or output.with_name(output.name + ".journal.jsonl")
    with progress_bar("Scoring spans") as progress:
        table = score_network(
            network,
            blueprint,
            images,
            estimator=chosen,
            spans=spans,
            metric=cast("Metric", metric),
            alpha=alpha,
            executor=cast("Executor", executor),
            workers=workers,
            journal=journal,
            progress=progress,
        )
    table.write(output)
    if json:
        emit({"output": str(output), "rows": len(table.frame), **table.header})
        return
    console.print(
        f"{output}: {len(table.frame)} entries; the original is right on "
        f"{float(table.header['original_accuracy']):.2%} of the held-out images."
    )
