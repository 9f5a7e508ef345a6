"""Expand-then-shrink: a network trained as a deeper one (Fu et al. 2022)."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from dpcompress.depthshrinker.contract import Contracted, contract
from dpcompress.depthshrinker.expand import Expansion, expand
from dpcompress.graph import linearize, set_share
from dpcompress.progress import Progress, silent
from dpcompress.training import Data, Extension, Recipe, finetune

# Fractions of the training at which the blocks' activations are fully there, begin to
# fade, and are gone.
APPEAR, GO, GONE = 0.1, 0.5, 0.8

_IMAGES = 256


@dataclass(frozen=True)
class Retrained:
    """The outcome of `expand_then_shrink`.

    start_error: largest |Δ| of the expanded network's output before training, relative
        to the original's largest output.
    """

    contracted: Contracted
    expansion: Expansion
    start_error: float


def expand_then_shrink(
    model: nn.Module,
    data: Data,
    recipe: Recipe,
    *,
    convs: Sequence[str] | None = None,
    ratio: float | None = None,
    checkpoint: Path | None = None,
    progress: Progress = silent,
) -> Retrained:
    """Train `model` with chosen dense convolutions expanded, and merge them back.

    The blocks' activations fade in from the identity, so that the training starts from
    `model` itself, and fade out before its end.

    Args:
        convs, ratio: see `expand`.
        recipe: the training of the expanded network; its distillation is from `model`.

    Raises:
        UsageError: a convolution that cannot be expanded; names the reason.
        TrainingDiverged: see `finetune`.
    """
    images = data.train.first(_IMAGES)
    expansion = expand(model, images, convs=convs, ratio=ratio)
    linear = linearize(expansion.network, expansion.plan, decay=True)
    set_share(linear, share(0.0))
    error = _distance(linear, model, images)
    finetune(
        linear,
        data,
        recipe,
        teacher=model if recipe.distill_weight else None,
        extension=Extension(
            on_step=lambda done: set_share(linear, share(done)),
            settings={"fades at": [APPEAR, GO, GONE]},
        ),
        checkpoint=checkpoint,
        validate=False,
        progress=progress,
    )
    return Retrained(contract(model, expansion, linear, images), expansion, error)


def share(done: float) -> float:
    """Return the share of the identity in the blocks' activations.

    done: the fraction of the training that is over.
    """
    if done < GO:
        return max(1 - done / APPEAR, 0.0)
    return min((done - GO) / (GONE - GO), 1.0)


def _distance(network: nn.Module, model: nn.Module, images: Tensor) -> float:
    """Return the largest |Δ| of the outputs, relative to the model's largest output."""
    with torch.no_grad():
        actual = copy.deepcopy(network).double().eval()(images.double())
        expected = copy.deepcopy(model).double().eval()(images.double())
    return float((actual - expected).abs().max() / expected.abs().max().clamp_min(1e-30))
