"""``dpcompress expand``: train a network as a deeper one, and merge it back."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dpcompress.cli.files import Json, WeightsOutput
from dpcompress.cli.output import emit, progress_bar

if TYPE_CHECKING:
    from pydantic import Field

    from dpcompress.settings import (
        FINETUNE,
        DataOptions,
        ModelOptions,
        Options,
        Panel,
        Recipe,
    )


def expand(
    model: ModelOptions,
    data: DataOptions,
    recipe: Annotated[
        Recipe,
        Options(
            "epochs",
            "batch_size",
            "lr",
            "seed",
            distill="distill_weight",
            panel=Panel.TRAINING,
            base=FINETUNE,
        ),
    ],
    output: WeightsOutput,
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
        Field(
            ge=0.1,
            description="Middle channels per input channel. Without it: as many as it "
            "takes to start as the same network (9 for 3x3 kernels).",
        ),
    ] = None,
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
    from dpcompress.cli.loading import load_trained
    from dpcompress.depthshrinker import expand_then_shrink
    from dpcompress.models import Origin, save_weights, weights_digest
    from dpcompress.training import evaluate

    original, images = load_trained(model, data)
    before_digest = weights_digest(original.state_dict())
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
        model=model.model,
        trained_from=before_digest,
        expanded=found.expansion.convs,
        ratio=ratio,
        data=images.description,
        recipe=recipe.model_dump(),
    )
    checkpoint.unlink(missing_ok=True)
    before = evaluate(original, images.test)
    after = evaluate(found.contracted.model, images.test)
    facts: dict[str, Any] = {
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
