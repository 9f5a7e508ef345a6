"""Fine-tuning a plan's network while the activations that it removes fade out."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, fx, nn

from dpcompress.blueprint import Blueprint, Plan
from dpcompress.depthshrinker.features import feature_loss, tapped
from dpcompress.graph import linearize, set_share
from dpcompress.graph.capture import capture
from dpcompress.graph.nodes import planned_of
from dpcompress.progress import Progress, silent
from dpcompress.training import Data, Extension, Recipe, finetune


def finetune_fading(
    model: nn.Module,
    plan: Plan,
    data: Data,
    recipe: Recipe,
    *,
    fade: float = 0.5,
    features: float = 0.0,
    checkpoint: Path | None = None,
    progress: Progress = silent,
) -> fx.GraphModule:
    """Train the network of `plan` while removed activations fade out (Fu et al. 2022).

    It is distilled from `model`: from its logits with `recipe.distill_weight`, and from
    its features.

    Args:
        fade: share of the training during which removed activations go from full to
            nothing; 0 removes them at once.
        features: weight of the relative squared distance between its tensors and the
            original's at the ends of merged spans, where both have an activation or
            both have none.
        checkpoint: see `finetune`.

    Returns:
        The linearized network, ready to merge.
    """
    network = linearize(model, plan, decay=fade > 0)
    trained: fx.GraphModule = network
    teacher, extra_loss = model, None
    ends = _comparable(planned_of(network).blueprint, plan)
    if features > 0 and ends:
        assert plan.input is not None
        original = capture(model, plan.input)
        trained, ours = tapped(network, original.blueprint, ends)
        teacher, theirs = tapped(original.network, original.blueprint, ends)

        def extra_loss(images: Tensor, logits: Tensor) -> Tensor:
            if recipe.distill_weight == 0:  # else the loss has run it
                with torch.no_grad():
                    teacher(images)
            return features * feature_loss(ours, theirs)

    finetune(
        trained,
        data,
        recipe,
        teacher=teacher,
        extension=Extension(
            on_step=lambda done: set_share(network, faded(done, fade)),
            extra_loss=extra_loss,
            settings={"fade": fade, "features": features},
        ),
        checkpoint=checkpoint,
        validate=False,
        progress=progress,
    )
    return network


def _comparable(blueprint: Blueprint, plan: Plan) -> list[int]:
    """List the ends of merged spans with an activation in both networks or in none."""
    return [
        span.stop
        for span in plan.merged
        if (span.stop in plan.activations) == blueprint.has_activation(span.stop)
    ]


def faded(done: float, fade: float) -> float:
    """Return how far activations have faded, from 0 to 1, after a fraction `done`."""
    return min(done / fade, 1.0) if fade else 1.0
