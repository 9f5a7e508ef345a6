"""The search for masks: trained with the weights until k masks are left on.

As in Fu et al. 2022, but the number of masks that are on falls to k during the search, so
that gradients choose the first ones to go, and not the order of equal scores.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from torch import Tensor, nn

from dpcompress.blueprint import Blueprint
from dpcompress.depthshrinker.groups import Group, check_keep, mask_groups
from dpcompress.depthshrinker.masks import MOMENTS, Masks, insert_masks, top
from dpcompress.depthshrinker.plans import Price, kept_activations
from dpcompress.progress import Progress, silent
from dpcompress.settings import By
from dpcompress.tables import LatencyTable
from dpcompress.training import Data, Extension, Recipe, finetune

# Share of the search during which the number of masks that are on falls to k.
FALLING = 0.5


@dataclass(frozen=True)
class Found:
    """The outcome of a search.

    groups: positions of each mask.
    on: the masks that are kept, exactly k.
    activations: positions whose activation stays, those without a mask included.
    history: columns done (0..1), keep, mask, positions, score, on; one row per mask and
        moment, at MOMENTS moments.
    """

    groups: tuple[Group, ...]
    on: tuple[int, ...]
    activations: tuple[int, ...]
    history: pd.DataFrame


def search(
    model: nn.Module,
    blueprint: Blueprint,
    data: Data,
    keep: int,
    *,
    by: By = "activation",
    recipe: Recipe | None = None,
    latency: LatencyTable | None = None,
    latency_weight: float = 1.0,
    teacher: nn.Module | None = None,
    checkpoint: Path | None = None,
    progress: Progress = silent,
) -> Found:
    """Find the `keep` masks that matter most, by training a copy of `model` with masks.

    Args:
        keep: number of masks that stay on.
        by: whether each activation has its own mask, or all of a block share one.
        latency: weighs the masks: the loss has `latency_weight` times the predicted time
            of the network that they leave, as a share of the original's.
        teacher: followed as `recipe.distill_weight` says.
        checkpoint: a search that is cut off goes on from this file; see `finetune`.

    Raises:
        UsageError: `keep` is less than 1 or more than there are masks.
        BadInput: nothing can be masked in this way.
        BadTable: `latency` is of another network.
    """
    groups = mask_groups(blueprint, by)
    check_keep(groups, keep, by)
    price = Price(blueprint, latency, groups) if latency else None
    network, masks = insert_masks(model, blueprint.input, groups)
    settings = {
        "masks": groups,
        "keep": keep,
        "latency": latency.digest if latency else "",
        "latency_weight": latency_weight,
    }
    finetune(
        network,
        data,
        recipe or Recipe(epochs=10),
        teacher=teacher,
        extension=_extension(masks, keep, price, latency_weight, settings),
        checkpoint=checkpoint,
        validate=False,
        progress=progress,
    )
    on = tuple(masks.on())
    kept = kept_activations(blueprint, groups, on)
    return Found(groups, on, kept, _history(masks, groups, keep))


def _extension(
    masks: Masks,
    keep: int,
    price: Price | None,
    latency_weight: float,
    settings: dict[str, Any],
) -> Extension:
    """Make what a search adds to training: fewer masks with time, and their price."""

    def on_step(done: float) -> None:
        masks.keep = masks_on(len(masks.scores), keep, done)
        masks.record(done)

    def latency_loss(images: Tensor, logits: Tensor) -> Tensor:
        assert price is not None
        values = masks()
        return latency_weight * (values * values.new_tensor(price.of(masks.on()))).sum()

    return Extension(on_step, latency_loss if price else None, settings)


def masks_on(count: int, keep: int, done: float) -> int:
    """Count the masks that are on when the fraction `done` of the search is over.

    At first all `count` are on; only `keep` once the fraction FALLING is over.
    """
    left = max(0.0, 1 - done / FALLING)
    return keep + round((count - keep) * left)


def _history(masks: Masks, groups: tuple[Group, ...], keep: int) -> pd.DataFrame:
    """Make the table of `Found.history`."""
    rows = []
    for moment, scores in enumerate(masks.history.cpu()):
        done = moment / (MOMENTS - 1)
        count = masks_on(len(groups), keep, done)
        on = set(top(scores, count))
        rows += [
            {
                "done": done,
                "keep": count,
                "mask": mask,
                "positions": " ".join(map(str, group)),
                "score": round(float(scores[mask]), 6),
                "on": int(mask in on),
            }
            for mask, group in enumerate(groups)
        ]
    return pd.DataFrame(rows)
