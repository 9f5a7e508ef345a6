"""How the importance of spans is scored."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from dpcompress.blueprint.data import Frozen
from dpcompress.settings.options import Options, Panel, Shown
from dpcompress.settings.recipe import SCORE, Count, Recipe

Metric = Literal["accuracy", "loss", "logits"]
Executor = Literal["local", "ray"]

# The number of images to fit a span on for its score; a kept network gets more.
SCORE_IMAGES = 512


class Scoring(Frozen):
    """The way in which spans are scored, and which change counts."""

    estimator: Annotated[
        Literal["finetune", "fit"] | None,
        Shown(panel=Panel.SEARCH),
        Field(
            description="How spans are scored: 'finetune' trains each for a few steps, "
            "as published; 'fit' replaces it by one convolution fitted to unlabelled "
            "images, which is faster. Without it: finetune, or fit in a run with --train "
            "none."
        ),
    ] = None
    recipe: Annotated[
        Recipe, Options("steps", "batch_size", "lr", "seed", panel=Panel.SEARCH)
    ] = SCORE
    images: Annotated[
        int,
        Shown(panel=Panel.SEARCH),
        Field(ge=16, description="Images that 'fit' fits on."),
    ] = SCORE_IMAGES
    metric: Annotated[
        Metric,
        Shown(panel=Panel.SEARCH),
        Field(
            description="What a span's importance is: the change of held-out 'loss' "
            "(finer where images are few) or 'accuracy' (as published), or, of 'fit', "
            "how far the outputs move ('logits', without labels)."
        ),
    ] = "loss"
    alpha: Annotated[
        float | None,
        Shown(panel=Panel.SEARCH),
        Field(
            ge=0,
            description="Normalisation: every importance is reduced by ALPHA times the "
            "mean over single layers. Published: 1.2 to 1.6. Without it: 1.2 where they "
            "are renewed, else 1.",
        ),
    ] = None
    renew: Annotated[
        bool | None,
        Shown(panel=Panel.SEARCH),
        Field(
            description="Whether single layers start from new weights, as published, "
            "which takes hundreds of steps to make up for. Without it: from 200 --steps "
            "on."
        ),
    ] = None


class Workers(Frozen):
    """The place where spans are scored; the table does not depend on it."""

    executor: Annotated[
        Executor,
        Shown(panel=Panel.SEARCH),
        Field(description="'local' processes, or those of a 'ray' cluster (extra ray)."),
    ] = "local"
    workers: Annotated[
        Count | None,
        Shown(panel=Panel.SEARCH),
        Field(
            description="Processes, one thread each. Without it: one per core, or one "
            "where there is a GPU (ray: one per GPU). The table does not depend on it."
        ),
    ] = None
