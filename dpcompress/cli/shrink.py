"""``dpcompress shrink``: DepthShrinker, resumable."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dpcompress.cli.compress import absolute, new_settings, pretraining, print_result
from dpcompress.cli.options import (
    Crop,
    Input,
    Json,
    MaxGrowth,
    MaxWeightMb,
    Mean,
    ModelArgs,
    Resize,
    RunData,
    RunFolder,
    Std,
    Threads,
    Weights,
    candidate_limits,
    given_options,
)
from dpcompress.cli.output import console, emit, progress_bar
from dpcompress.errors import UsageError

SEARCH, TUNING, ENGINE = "Search", "Fine-tuning", "Engine"


def shrink(
    context: typer.Context,
    output: RunFolder,
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="[MODEL]",
            help="torchvision:NAME, timm:NAME, or path.py:factory. Without it: go on "
            "with the run in RUN.",
            show_default=False,
        ),
    ] = None,
    weights: Weights = None,
    model_args: ModelArgs = None,
    data: RunData = None,
    keep: Annotated[
        int | None,
        typer.Option(
            "--keep", metavar="K", help="How many masks stay on.", rich_help_panel=SEARCH
        ),
    ] = None,
    by: Annotated[
        str,
        typer.Option(
            "--by",
            metavar="activation|block",
            help="What has a mask: each activation, or all those inside a block.",
            rich_help_panel=SEARCH,
        ),
    ] = "activation",
    latency: Annotated[
        Path | None,
        typer.Option(
            "--latency",
            help="A latency table: weighs the masks by the time that they cost, and "
            "merges where it is fastest.",
            rich_help_panel=SEARCH,
        ),
    ] = None,
    latency_weight: Annotated[
        float,
        typer.Option(
            "--latency-weight",
            min=0,
            help="Loss of the whole original's time.",
            rich_help_panel=SEARCH,
        ),
    ] = 1.0,
    max_growth: MaxGrowth = None,
    max_weight_mb: MaxWeightMb = None,
    search_epochs: Annotated[
        int, typer.Option("--search-epochs", min=1, rich_help_panel=SEARCH)
    ] = 10,
    search_lr: Annotated[
        float, typer.Option("--search-lr", rich_help_panel=SEARCH)
    ] = 0.05,
    free_activations: Annotated[
        bool,
        typer.Option(
            help="Add one after each merged convolution that has none.",
            rich_help_panel=TUNING,
        ),
    ] = False,
    epochs: Annotated[int, typer.Option("--epochs", min=1, rich_help_panel=TUNING)] = 20,
    lr: Annotated[float, typer.Option("--lr", rich_help_panel=TUNING)] = 0.05,
    fade: Annotated[
        float,
        typer.Option(
            "--fade",
            min=0,
            max=1,
            help="Share of fine-tuning during which removed activations fade; 0: gone at "
            "once.",
            rich_help_panel=TUNING,
        ),
    ] = 0.5,
    features: Annotated[
        float,
        typer.Option(
            "--features",
            min=0,
            help="Weight of following the original's features, too.",
            rich_help_panel=TUNING,
        ),
    ] = 0.0,
    engine: Annotated[
        str,
        typer.Option(
            "--engine", help="Engine that it will run on.", rich_help_panel=ENGINE
        ),
    ] = "onnxruntime",
    precision: Annotated[
        str, typer.Option("--precision", help="Its numbers.", rich_help_panel=ENGINE)
    ] = "fp32",
    threads: Threads = None,
    batch: Annotated[
        int,
        typer.Option("--batch", min=1, help="Images at a time.", rich_help_panel=ENGINE),
    ] = 1,
    input: Input = None,
    resize: Resize = None,
    crop: Crop = None,
    mean: Mean = None,
    std: Std = None,
    pretrain_epochs: Annotated[
        int | None,
        typer.Option("--pretrain-epochs", min=1, help="Train from scratch first."),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of everything random.")] = 0,
    json: Json = False,
) -> None:
    """Make a network shallower by DepthShrinker: learn which activations matter.

    Trains a mask for each activation (or block) together with the weights until K are on,
    lets the other activations fade out while the network is fine-tuned, merges, exports
    and times the result. Killed at any moment, the same command goes on where it stopped.

    \b
    Example:
      dpcompress shrink torchvision:mobilenet_v2 --model-args num_classes=10 \\
          --weights trained.safetensors --input 3x32x32 --data digits --keep 12 -o RUN
    """
    from dpcompress.pipeline import shrink
    from dpcompress.settings import Recipe, ShrinkSettings

    settings = None
    if model is None:
        ignored = {*given_options(context)} - {"--output", "--json"}
        if ignored:
            names = ", ".join(sorted(ignored))
            raise UsageError(f"{names} without a MODEL.", "Name the model.")
    else:
        if data is None or keep is None:
            raise UsageError(
                "A run needs --data and --keep.", "For example: --data photos/ --keep 12."
            )
        if by not in ("activation", "block"):
            raise UsageError(f"--by {by} is unknown.", "Choose activation or block.")
        settings = new_settings(
            ShrinkSettings,
            model,
            weights,
            data,
            input,
            model_args=dict(model_args or ()),
            keep=keep,
            by=by,
            latency=absolute(latency),
            latency_weight=latency_weight,
            limits=candidate_limits(max_growth, max_weight_mb),
            search=Recipe(epochs=search_epochs, lr=search_lr, distill_weight=0.5),
            free_activations=free_activations,
            finetune=Recipe(epochs=epochs, lr=lr, distill_weight=0.5),
            fade=fade,
            features=features,
            engine=engine,
            precision=precision,
            threads=threads,
            batch=batch,
            resize=resize,
            crop=crop,
            mean=mean,
            std=std,
            pretrain=pretraining(pretrain_epochs),
        ).seeded(seed)
    result = shrink(settings, output, progress_bar)
    if json:
        emit(result.model_dump(mode="json"))
        return
    print_result(result, output)
    console.print(f"{output / 'masks.png'}: the search", soft_wrap=True)
