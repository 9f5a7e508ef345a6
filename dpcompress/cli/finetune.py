"""``dpcompress finetune``: train a network in the form that its plan merges."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from dpcompress.cli.options import (
    Crop,
    Data,
    Form,
    Input,
    Json,
    Mean,
    Model,
    ModelArgs,
    PlanFile,
    Resize,
    Seed,
    Std,
    Weights,
)
from dpcompress.cli.output import console, emit, progress_bar
from dpcompress.errors import UsageError

_FIT_IMAGES = 1024


class Numbers(StrEnum):
    fp32 = "fp32"
    bf16 = "bf16"
    fp16 = "fp16"


def finetune(
    model: Model,
    plan: PlanFile,
    data: Data,
    output: Annotated[
        Path, typer.Option("-o", "--output", help="The weights to write (safetensors).")
    ],
    weights: Weights = None,
    model_args: ModelArgs = None,
    input: Input = None,
    resize: Resize = None,
    crop: Crop = None,
    mean: Mean = None,
    std: Std = None,
    form: Form = "linearized",
    epochs: Annotated[
        int, typer.Option("--epochs", min=1, help="Passes over the training images.")
    ] = 20,
    batch_size: Annotated[
        int, typer.Option("--batch-size", min=2, help="Images per step.")
    ] = 64,
    lr: Annotated[
        float,
        typer.Option("--lr", help="Highest learning rate; it falls along a cosine."),
    ] = 0.05,
    weight_decay: Annotated[
        float, typer.Option("--weight-decay", min=0, help="Not on norms and biases.")
    ] = 5e-4,
    label_smoothing: Annotated[
        float, typer.Option("--label-smoothing", min=0, max=1)
    ] = 0.0,
    distill: Annotated[
        float,
        typer.Option(
            "--distill",
            min=0,
            max=1,
            help="Share of the loss that follows the original network's outputs.",
        ),
    ] = 0.5,
    augment: Annotated[
        bool, typer.Option(help="Shift, crop and flip the training images at random.")
    ] = True,
    precision: Annotated[
        Numbers, typer.Option("--precision", help="Of the passes; weights stay fp32.")
    ] = Numbers.fp32,
    compile: Annotated[
        bool, typer.Option("--compile", help="Compile the network: for long runs.")
    ] = False,
    log: Annotated[
        Path | None, typer.Option("--log", help="CSV of the epochs, as they finish.")
    ] = None,
    seed: Seed = 0,
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

    from dpcompress.blueprint import Plan
    from dpcompress.cli.options import InputShape
    from dpcompress.cli.trained import Preparation, load_trained
    from dpcompress.graph import fit_merged, linearize, with_norms, without_norms
    from dpcompress.importance import calibration_images
    from dpcompress.models import Origin, save_weights, weights_digest
    from dpcompress.training import Recipe, evaluate, finetune

    if form not in ("linearized", "merged"):
        raise UsageError(f"--form {form} does not exist.", "Choose linearized or merged.")
    decision = Plan.from_json(plan.read_bytes(), plan)
    if input is not None and decision.input not in (None, tuple(input)):
        raise UsageError(
            f"{plan} is for inputs of {'x'.join(map(str, decision.input or ()))}.",
            "Leave out --input, or solve again for the other size.",
        )
    if decision.input is not None:
        input = InputShape(*decision.input)
    preparation = Preparation(resize, crop, mean, std)
    original, images = load_trained(model, weights, model_args, input, data, preparation)
    origin = Origin(
        form="merged" if form == "merged" else "linearized",
        original=weights_digest(original.state_dict()),
        plan=decision.digest,
    )
    merged = form == "merged"
    if merged:
        calibration = calibration_images(images, _FIT_IMAGES, seed)
        with progress_bar("Fitting the spans") as progress:
            network, _ = fit_merged(original, decision, calibration, progress=progress)
        with_norms(network, calibration)
    else:
        network = linearize(original, decision)
    recipe = Recipe(
        epochs=epochs,
        batch_size=batch_size,
        lr=lr,
        weight_decay=weight_decay,
        label_smoothing=label_smoothing,
        distill_weight=distill,
        augment=augment,
        precision=precision.value,
        compile=compile,
        seed=seed,
    )
    checkpoint = output.with_name(output.name + ".checkpoint")
    with progress_bar("Fine-tuning") as progress:
        history = finetune(
            network,
            images,
            recipe,
            teacher=original if distill else None,
            checkpoint=checkpoint,
            log=log,
            progress=progress,
        )
    if merged:
        without_norms(network)
    if not PartialState().is_main_process:
        return
    epochs_done = [asdict(epoch) for epoch in history]
    save_weights(
        output,
        network.state_dict(),
        origin,
        model=model,
        data=images.description,
        recipe=recipe.model_dump(),
        history=epochs_done,
    )
    checkpoint.unlink(missing_ok=True)
    before = evaluate(original, images.test)
    after = evaluate(network, images.test)
    if json:
        emit(
            {
                "output": str(output),
                "original": asdict(before),
                "finetuned": asdict(after),
                "history": epochs_done,
            }
        )
        return
    console.print(
        f"{output}: right on {after.accuracy:.2%} of {after.count} test images, "
        f"the original on {before.accuracy:.2%}."
    )
