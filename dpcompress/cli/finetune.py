"""``dpcompress finetune``: train a network in the form that its plan merges."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dpcompress.cli.files import OUTPUT, Json, PlanFile, WeightsOutput
from dpcompress.cli.output import console, emit, progress_bar

if TYPE_CHECKING:
    from torch import fx, nn

    from dpcompress.blueprint import Plan
    from dpcompress.settings import (
        FINETUNE,
        DataOptions,
        ModelOptions,
        Options,
        Panel,
        Recipe,
        Tuning,
    )
    from dpcompress.training import Data


def finetune(
    model: ModelOptions,
    data: DataOptions,
    plan: PlanFile,
    tuning: Annotated[Tuning, Options("form")],
    recipe: Annotated[
        Recipe,
        Options(
            "epochs",
            "batch_size",
            "lr",
            "weight_decay",
            "label_smoothing",
            "augment",
            "precision",
            "compile",
            "seed",
            distill="distill_weight",
            panel=Panel.TRAINING,
            base=FINETUNE,
        ),
    ],
    output: WeightsOutput,
    log: Annotated[
        Path | None,
        typer.Option(
            "--log",
            help="CSV of the epochs, as they finish. Without it: none.",
            rich_help_panel=OUTPUT,
            show_default=False,
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Fine-tune the network of a plan, before it is merged.

    The plan's activations are removed and its padding moved, so that merging afterwards
    changes nothing. Interrupted, the same command goes on where it was two minutes before
    at most. The result is a state dict with the original's names; train it in your own
    loop if you like (see `dpcompress.linearize`). With --form merged it is the merged
    network's: no merge is needed, `export` takes it as it is. On several GPUs, start it
    with `accelerate launch -m dpcompress finetune …`; --batch-size counts the images of
    all.

    \b
    Example:
      dpcompress finetune torchvision:mobilenet_v2 --model-args num_classes=10 \\
        --weights trained.safetensors --plan plan.json --data digits -o ft.safetensors
    """
    from dataclasses import asdict

    from accelerate import PartialState

    from dpcompress.cli.loading import load_plan, load_trained
    from dpcompress.graph import without_norms
    from dpcompress.models import Origin, save_weights, weights_digest
    from dpcompress.training import evaluate, finetune

    decision = load_plan(plan, model)
    original, images = load_trained(model, data, decision.input or model.input)
    origin = Origin(
        form=tuning.form,
        original=weights_digest(original.state_dict()),
        plan=decision.digest,
    )
    network = _to_train(original, decision, images, tuning, recipe.seed)
    checkpoint = output.with_name(output.name + ".checkpoint")
    with progress_bar("Fine-tuning") as progress:
        history = finetune(
            network,
            images,
            recipe,
            teacher=original if recipe.distill_weight else None,
            checkpoint=checkpoint,
            log=log,
            progress=progress,
        )
    if tuning.form == "merged":
        without_norms(network)
    if not PartialState().is_main_process:
        return
    epochs = [asdict(epoch) for epoch in history]
    save_weights(
        output,
        network.state_dict(),
        origin,
        model=model.model,
        data=images.description,
        recipe=recipe.model_dump(),
        history=epochs,
    )
    checkpoint.unlink(missing_ok=True)
    before = evaluate(original, images.test)
    after = evaluate(network, images.test)
    if json:
        known = {"original": asdict(before), "finetuned": asdict(after)}
        emit({"output": str(output), **known, "history": epochs})
        return
    console.print(
        f"{output}: right on {after.accuracy:.2%} of {after.count} test images, "
        f"the original on {before.accuracy:.2%}."
    )


def _to_train(
    original: nn.Module, plan: Plan, images: Data, tuning: Tuning, seed: int
) -> fx.GraphModule:
    """The linearized network of `plan`, or the merged one with its spans fitted."""
    from dpcompress.graph import fit_merged, linearize, with_norms
    from dpcompress.importance import calibration_images

    if tuning.form == "linearized":
        return linearize(original, plan)
    calibration = calibration_images(images, tuning.images, seed)
    with progress_bar("Fitting the spans") as progress:
        network, _ = fit_merged(original, plan, calibration, progress=progress)
    with_norms(network, calibration)
    return network
