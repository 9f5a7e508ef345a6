"""``dpcompress compress``: the whole job, resumable."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from dpcompress.cli.options import (
    Crop,
    Device,
    Form,
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
from dpcompress.cli.output import console, emit, print_table, progress_bar
from dpcompress.errors import UsageError

if TYPE_CHECKING:
    from dpcompress.pipeline import Result
    from dpcompress.settings import Recipe, RunSettings, Settings

S = TypeVar("S", bound="RunSettings")


def compress(
    context: typer.Context,
    output: RunFolder,
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="[MODEL]",
            help="torchvision:NAME, timm:NAME, or path.py:factory. Without it: go on "
            "with the run in RUN, or run the built-in example.",
            show_default=False,
        ),
    ] = None,
    weights: Weights = None,
    model_args: ModelArgs = None,
    data: RunData = None,
    budget: Annotated[
        str | None,
        typer.Option(
            "--budget",
            help="End-to-end latency that the compressed network may have: 12.5ms, 70% "
            "of the original, or 1.5x as a speed-up.",
        ),
    ] = None,
    engine: Annotated[
        str, typer.Option("--engine", help="Engine that it will run on.")
    ] = ("onnxruntime"),
    precision: Annotated[str, typer.Option("--precision", help="Its numbers.")] = "fp32",
    device: Device = None,
    threads: Threads = None,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Images at a time.")] = 1,
    input: Input = None,
    resize: Resize = None,
    crop: Crop = None,
    mean: Mean = None,
    std: Std = None,
    pretrain_epochs: Annotated[
        int | None,
        typer.Option("--pretrain-epochs", min=1, help="Train from scratch first."),
    ] = None,
    epochs: Annotated[
        int, typer.Option("--epochs", min=1, help="Of fine-tuning the chosen network.")
    ] = 20,
    lr: Annotated[float, typer.Option("--lr", help="Of fine-tuning.")] = 0.01,
    score_steps: Annotated[
        int, typer.Option("--score-steps", min=1, help="Training steps per scored span.")
    ] = 8,
    estimator: Annotated[
        str | None,
        typer.Option(
            "--estimator",
            help="How spans are scored: 'finetune' trains each for --score-steps, 'fit' "
            "fits a convolution to it. Without it: finetune, or fit with --train none.",
            show_default=False,
        ),
    ] = None,
    train: Annotated[
        str,
        typer.Option(
            "--train",
            help="'finetune', or 'none': fit every span of the plan to the original by "
            "least squares instead; takes minutes.",
        ),
    ] = "finetune",
    form: Form = "linearized",
    latency: Annotated[
        Path | None,
        typer.Option(
            "--latency", help="Use this latency table instead of measuring one."
        ),
    ] = None,
    max_growth: MaxGrowth = None,
    max_weight_mb: MaxWeightMb = None,
    measure: Annotated[
        bool | None,
        typer.Option(
            "--measure/--no-measure",
            help="Build and time planned networks until one is measured to fit the "
            "budget. Without it: yes, unless --latency is given.",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of everything random.")] = 0,
    json: Json = False,
) -> None:
    """Make a network shallower until it fits a latency budget; say what it cost.

    Times every span of layers on the engine, scores what each activation is worth, picks
    the best plan that is measured to be within the budget, fine-tunes, merges and
    exports. Killed at any moment, the same command goes on where it stopped.

    A machine may be faster or slower from one minute to the next. A budget such as 70%
    is about the ratio to the original, both measured at the same time; one in ms is
    about the machine as it was when the table was measured.

    \b
    Examples:
      dpcompress compress -o RUN
          the built-in example: MobileNetV2 on handwritten digits, trained first
      dpcompress compress torchvision:resnet18 --weights mine.safetensors \\
          --data photos/ --budget 70% -o RUN
    """
    from dpcompress.pipeline import compress
    from dpcompress.settings import EXAMPLE, Settings, read_settings

    settings: Settings | None
    if model is None:
        stored = output / "run.json"
        own = set() if stored.exists() else {"--latency", "--measure"}
        ignored = [
            name
            for name in given_options(context)
            if name not in {"--output", "--json", "--seed", *own}
        ]
        if ignored:
            raise UsageError(
                f"{', '.join(ignored)} without a MODEL.",
                "Name the model, or leave all of it out for the built-in example.",
            )
        settings = None if stored.exists() else EXAMPLE.seeded(seed)
        if settings is not None:
            changes = {"latency": absolute(latency), "measure": measure}
            settings = settings.model_copy(update=changes)
        if settings is None and read_settings(stored, Settings).seed != seed != 0:
            raise UsageError(
                f"{output} holds a run with another seed.", "Choose another."
            )
    else:
        if data is None or budget is None:
            raise UsageError(
                "A run needs --data and --budget.",
                "For example: --data photos/ --budget 70%.",
            )
        settings = new_settings(
            Settings,
            model,
            weights,
            data,
            input,
            model_args=dict(model_args or ()),
            budget=budget,
            engine=engine,
            precision=precision,
            device=device,
            threads=threads,
            batch=batch,
            resize=resize,
            crop=crop,
            mean=mean,
            std=std,
            latency=absolute(latency),
            limits=candidate_limits(max_growth, max_weight_mb),
            measure=measure,
        )
        estimator = estimator or ("fit" if train == "none" else "finetune")
        settings = _with_recipes(settings, pretrain_epochs, epochs, lr, score_steps, seed)
        settings = _with_choices(settings, estimator, train, form)
    result = compress(settings, output, progress_bar)
    if json:
        emit(result.model_dump(mode="json"))
    else:
        print_result(result, output)


def new_settings(
    kind: type[S], model: str, weights: str | None, data: str, input: Any, **rest: Any
) -> S:
    """Settings of a run, with what the options leave open taken from the model."""
    from dpcompress.cli.trained import Preparation, fill
    from dpcompress.models import default_input

    shape = input or default_input(model)
    asked = Preparation(*(rest[name] for name in Preparation._fields))
    rest |= fill(asked, model, weights, shape)._asdict()
    file, factory, function = model.rpartition(".py:")
    _, folder, place = data.rpartition("cifar10:")
    return kind(
        model=f"{absolute(file + '.py')}:{function}" if factory else model,
        weights=weights if weights == "default" else absolute(weights),
        data=data if data == "digits" else f"{folder}{absolute(place)}",
        input=shape,
        **rest,
    )


def absolute(path: str | Path | None) -> str | None:
    """A run may be gone on with from another folder."""
    return None if path is None else str(Path(path).resolve())


def _with_recipes(
    settings: Settings,
    pretrain_epochs: int | None,
    epochs: int,
    lr: float,
    score_steps: int,
    seed: int,
) -> Settings:
    finetune = settings.finetune.model_copy(update={"epochs": epochs, "lr": lr})
    recipe = settings.scoring.recipe.model_copy(update={"steps": score_steps})
    scoring = settings.scoring.model_copy(update={"recipe": recipe})
    return settings.model_copy(
        update={
            "finetune": finetune,
            "scoring": scoring,
            "pretrain": pretraining(pretrain_epochs),
        }
    ).seeded(seed)


def _with_choices(settings: Settings, estimator: str, train: str, form: str) -> Settings:
    for option, value, known in (
        ("--estimator", estimator, ("finetune", "fit")),
        ("--train", train, ("finetune", "none")),
        ("--form", form, ("linearized", "merged")),
    ):
        if value not in known:
            raise UsageError(
                f"{option} {value} does not exist.", f"Choose {' or '.join(known)}."
            )
    scoring = settings.scoring.model_copy(update={"estimator": estimator})
    if train == "none" and form == "merged":
        raise UsageError("--form merged is for training.", "Leave out --train none.")
    changes = {"scoring": scoring, "train": train, "form": form}
    changed = settings.model_copy(update=changes)
    return type(changed).model_validate(changed.model_dump())


def pretraining(epochs: int | None) -> Recipe | None:
    """How a network is trained from scratch first, if it is."""
    from dpcompress.settings import Recipe

    return None if epochs is None else Recipe(epochs=epochs, lr=0.1, schedule="onecycle")


def print_result(result: Result, folder: Path) -> None:
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
