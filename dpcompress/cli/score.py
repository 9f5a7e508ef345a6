"""``dpcompress score``: the importance table of a trained network."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dpcompress.cli.asked import Asked
from dpcompress.cli.files import OUTPUT, Json
from dpcompress.cli.output import console, emit, progress_bar
from dpcompress.errors import UsageError

if TYPE_CHECKING:
    from torch import nn

    from dpcompress.blueprint import Blueprint, Limits, Span
    from dpcompress.settings import (
        DataOptions,
        LimitOptions,
        ModelOptions,
        Scoring,
        Size,
        Workers,
    )

_ONLY_OF = {
    "finetune": ("--steps", "--batch-size", "--lr", "--renew", "--no-renew"),
    "fit": ("--images",),
}


def score(
    model: ModelOptions,
    data: DataOptions,
    asked: Asked[Scoring],
    limits: LimitOptions,
    workers: Workers,
    output: Annotated[
        Path,
        typer.Option(
            "-o", "--output", help="The table to write.", rich_help_panel=OUTPUT
        ),
    ],
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
    journal: Annotated[
        Path | None,
        typer.Option(
            "--journal",
            help="Finished scores, reused by a later call with the same network, data "
            "and recipe. Without it: OUTPUT.journal.jsonl.",
            show_default=False,
            rich_help_panel=OUTPUT,
        ),
    ] = None,
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
    from dpcompress.cli.loading import load_trained
    from dpcompress.importance import estimator_of
    from dpcompress.importance import score as score_network

    scoring = asked.build()
    _refuse_unused(scoring.estimator or "finetune", asked.names)
    network, images = load_trained(model, data)
    blueprint, spans = _spans(network, images.train.size, limits, latency)
    journal = journal or output.with_name(output.name + ".journal.jsonl")
    with progress_bar("Scoring spans") as progress:
        table = score_network(
            network,
            blueprint,
            images,
            estimator=estimator_of(scoring),
            spans=spans,
            metric=scoring.metric,
            alpha=scoring.alpha,
            executor=workers.executor,
            workers=workers.workers,
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


def _refuse_unused(estimator: str, given: list[str]) -> None:
    """Refuse options that another estimator has.

    Raises:
        UsageError: one of them was given.
    """
    for owner, options in _ONLY_OF.items():
        unused = [option for option in given if option in options]
        if owner != estimator and unused:
            raise UsageError(
                f"The estimator {estimator} has no {unused[0]}.", "Leave it out."
            )


def _spans(
    network: nn.Module, size: Size, limits: Limits, latency: Path | None
) -> tuple[Blueprint, list[Span] | None]:
    """The blueprint, and the spans to score: None for all candidates.

    Raises:
        UsageError: `limits` are neither the default nor those of the latency table.
        BadTable: the latency table is of another network.
    """
    from dpcompress.blueprint import Limits
    from dpcompress.graph import trace
    from dpcompress.importance import worth_scoring
    from dpcompress.tables import LatencyTable

    if latency is None:
        return trace(network, size, limits), None
    times = LatencyTable.read(latency)
    if times.limits is not None and limits not in (Limits(), times.limits):
        raise UsageError(
            f"{latency} was made with other limits of candidate spans.",
            "Leave out --max-growth and --max-weight-mb: the table has them.",
        )
    blueprint = trace(network, size, times.limits or limits)
    times.require(blueprint.digest)
    return blueprint, worth_scoring(blueprint, times)
