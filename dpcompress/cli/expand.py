"""``dpcompress expand``: train a network as a deeper one, and merge it back."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from dpcompress.cli.options import (
    Crop,
    Data,
    Input,
    Json,
    Mean,
    Model,
    ModelArgs,
    Resize,
    Seed,
    Std,
    Weights,
)
from dpcompress.cli.output import emit, progress_bar


def expand(
    model: Model,
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
    convs: Annotated[
        str | None,
        typer.Option(
            "--convs",
            metavar="NAME,NAME",
            help="Which convolutions to expand. Without it: all that can be.",
            show_default=False,
        ),
    ] = None,
    ratio: Annotated[
        float | None,
        typer.Option(
            "--ratio",
            min=0.1,
            help="Middle channels per input channel. Without it: as many as it takes to "
            "start as the same network (9 for 3x3 kernels).",
            show_default=False,
        ),
    ] = None,
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
    distill: Annotated[
        float,
        typer.Option(
            "--distill",
            min=0,
            max=1,
            help="Share of the loss that follows the network as it was.",
        ),
    ] = 0.0,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Train a network with more layers than it is deployed with (expand-then-shrink).

    Dense convolutions become inverted-residual blocks with activations, which fade in,
    work, and fade out again; then each block is merged back into the one convolution that
    it came from. The weights that are written are the network's own, layer by layer.
    Interrupted, the same command goes on after its last epoch.

    \b
    Example:
      dpcompress expand torchvision:resnet18 --model-args num_classes=10 \\
        --weights trained.safetensors --input 3x32x32 --data digits -o better.safetensors
    """
    from dpcompress.cli.trained import Preparation, load_trained
    from dpcompress.depthshrinker import expand_then_shrink
    from dpcompress.models import Origin, save_weights, weights_digest
    from dpcompress.training import Recipe, evaluate

    preparation = Preparation(resize, crop, mean, std)
    original, images = load_trained(model, weights, model_args, input, data, preparation)
    before_digest = weights_digest(original.state_dict())
    recipe = Recipe(
        epochs=epochs, batch_size=batch_size, lr=lr, distill_weight=distill, seed=seed
    )
    checkpoint = output.with_name(output.name + ".checkpoint")
    with progress_bar("Train the expanded network") as progress:
        found = expand_then_shrink(
            original,
            images,
            recipe,
            convs=None if convs is None else [c.strip() for c in convs.split(",")],
            ratio=ratio,
            checkpoint=checkpoint,
            progress=progress,
        )
    state = found.contracted.model.state_dict()
    save_weights(
        output,
        state,
        Origin(form="original", original=weights_digest(state)),
        model=model,
        trained_from=before_digest,
        expanded=found.expansion.convs,
        ratio=ratio,
        data=images.description,
        recipe=recipe.model_dump(),
    )
    checkpoint.unlink(missing_ok=True)
    before = evaluate(original, images.test)
    after = evaluate(found.contracted.model, images.test)
    facts = {
        "output": str(output),
        "expanded": found.expansion.convs,
        "layers_in_training": found.expansion.blueprint.depth,
        "weight_error": found.expansion.weight_error,
        "start_error": found.start_error,
        "difference": found.contracted.difference,
        "original": asdict(before),
        "retrained": asdict(after),
    }
    if json:
        emit(facts)
        return
    worst = max(found.expansion.weight_error.values())
    print(
        f"{len(found.expansion.convs)} convolutions were expanded, to "
        f"{found.expansion.blueprint.depth} layers in training. The expanded network "
        f"started within {found.start_error:.1e} of the original's largest output "
        f"(kernels within {worst:.1e}). Merged back, it differs by "
        f"{found.contracted.difference:.1e} in double precision.\n"
        f"{output}: right on {after.accuracy:.2%} of {after.count} test images, before "
        f"on {before.accuracy:.2%}."
    )
