"""Everything that decides what a run does, as plain frozen data in RUN/run.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, Field, field_validator, model_validator

from dpcompress.blueprint import Limits
from dpcompress.blueprint.data import Frozen, parse
from dpcompress.errors import BadInput, UsageError
from dpcompress.runner.target import Target
from dpcompress.settings.network import INPUT_FIELD, DataOptions, ModelOptions, Size
from dpcompress.settings.options import HIDDEN, Options, Panel, Shown
from dpcompress.settings.recipe import (
    FINETUNE,
    PRETRAIN,
    SCORE,
    SEARCH,
    SEED_FIELD,
    Count,
    Fraction,
    Recipe,
)
from dpcompress.settings.scoring import Scoring

By = Literal["activation", "block"]
TargetOptions = Annotated[Target, Options(panel=Panel.ENGINE)]
LimitOptions = Annotated[Limits, Options(panel=Panel.SEARCH)]
BUDGET_FIELD = Field(
    description="Latency that the whole network may have: 12.5ms, 70% of the original's, "
    "or 1.5x as a speed-up."
)
M = TypeVar("M", bound=BaseModel)


def changed(model: M, /, **changes: Any) -> M:
    """Copy `model` with other values, checked as if it had been made with them."""
    return model.model_validate(dict(model) | changes)


def seeded(model: M, seed: int) -> M:
    """Copy `model` with another seed, in the models that it is made of too."""
    parts = {n: seeded(p, seed) for n, p in model if isinstance(p, BaseModel)}
    own = {"seed": seed} if "seed" in type(model).model_fields else {}
    return changed(model, **parts, **own)


class RunSettings(DataOptions, ModelOptions):
    """The settings of every run, whatever method it uses.

    Files are named by absolute paths, so that a run can be gone on with from another
    folder.
    """

    version: Annotated[Literal[2], HIDDEN] = 2
    input: Annotated[Size, Shown("CxHxW", Panel.MODEL), INPUT_FIELD]
    target: TargetOptions = Target()
    limits: LimitOptions = Limits()
    latency: Annotated[
        str | None,
        Shown("T.csv", Panel.ENGINE),
        Field(description="Use this latency table instead of measuring one."),
    ] = None
    pretrain: Annotated[
        Recipe | None,
        Options(
            pretrain_epochs="epochs",
            panel=Panel.TRAINING,
            lead="Train from scratch first (without it: not)",
            base=PRETRAIN,
        ),
    ] = None
    finetune: Annotated[Recipe, Options("epochs", "lr", panel=Panel.TRAINING)] = FINETUNE
    seed: Annotated[int, Shown(panel=Panel.TRAINING), SEED_FIELD] = 0

    @field_validator("model")
    @classmethod
    def _absolute_model(cls, value: str) -> str:
        file, factory, function = value.rpartition(".py:")
        return f"{_absolute(f'{file}.py')}:{function}" if factory else value

    @field_validator("weights", "latency")
    @classmethod
    def _absolute_file(cls, value: str | None) -> str | None:
        return value if value in (None, "default") else _absolute(value)

    @field_validator("data")
    @classmethod
    def _absolute_data(cls, value: str) -> str:
        kind, prefix, folder = value.rpartition("cifar10:")
        return value if value == "digits" else f"{kind}{prefix}{_absolute(folder)}"

    @model_validator(mode="after")
    def _check_weights(self) -> Self:
        if self.weights is not None and self.pretrain is not None:
            raise ValueError("give weights or train from scratch, not both")
        return self


class Tuning(Frozen):
    """The way in which the network of a plan gets its weights.

    images: number of unlabelled images that spans are fitted on, if they are fitted.
    """

    train: Annotated[
        Literal["finetune", "none"],
        Shown(panel=Panel.TRAINING),
        Field(
            description="'finetune', or 'none': fit every span of the plan to the "
            "original by least squares instead, without labels; takes minutes."
        ),
    ] = "finetune"
    form: Annotated[
        Literal["linearized", "merged"],
        Shown(panel=Panel.TRAINING),
        Field(
            description="What is trained: the 'linearized' network, to be merged exactly "
            "later, or the 'merged' one, small from the start, whose spans were first "
            "fitted to the original by least squares."
        ),
    ] = "linearized"
    images: Annotated[Count, HIDDEN] = 1024

    @model_validator(mode="after")
    def _check_form(self) -> Self:
        if self.train == "none" and self.form == "merged":
            raise ValueError("form merged is for training, train none does without")
        return self

    @property
    def fits(self) -> bool:
        """Whether spans are fitted, not merged exactly."""
        return self.train == "none" or self.form == "merged"

    @property
    def trains(self) -> bool:
        """Whether the compressed network is fine-tuned."""
        return self.train == "finetune"


class Settings(Tuning, RunSettings):
    """A run of `compress`.

    budget: as `parse_budget` takes it, end to end.
    """

    verb: Annotated[Literal["compress"], HIDDEN] = "compress"
    budget: Annotated[
        str,
        Shown("TIME|%|x", Panel.BUDGET),
        BUDGET_FIELD,
    ]
    measure: Annotated[
        bool | None,
        Shown(panel=Panel.BUDGET),
        Field(
            description="Build and time planned networks until one is measured to fit "
            "the budget. Without it: yes, unless --latency is given: that table may be "
            "of another machine."
        ),
    ] = None
    scoring: Annotated[
        Scoring, Options("estimator", score_steps="recipe.steps", panel=Panel.SEARCH)
    ] = Scoring()

    @property
    def measures(self) -> bool:
        """Whether planned networks are measured to choose among them."""
        return self.latency is None if self.measure is None else self.measure


class ShrinkSettings(RunSettings):
    """A run of `shrink`: see `depthshrinker.search`, `finetune_fading` and `Merger`."""

    verb: Annotated[Literal["shrink"], HIDDEN] = "shrink"
    latency: Annotated[
        str | None,
        Shown("T.csv", Panel.SEARCH),
        Field(
            description="A latency table: weighs the masks by the time that they cost, "
            "and merges where it is fastest. Without it: all weigh the same."
        ),
    ] = None
    keep: Annotated[
        int, Shown("K", Panel.SEARCH), Field(description="How many masks stay on.")
    ]
    by: Annotated[
        By,
        Shown(panel=Panel.SEARCH),
        Field(
            description="What has a mask: each activation, or all those inside a block."
        ),
    ] = "activation"
    search: Annotated[
        Recipe, Options(search_epochs="epochs", search_lr="lr", panel=Panel.SEARCH)
    ] = SEARCH
    latency_weight: Annotated[
        float,
        Shown(panel=Panel.SEARCH),
        Field(ge=0, description="Loss per predicted time of the whole original."),
    ] = 1.0
    fade: Annotated[
        Fraction,
        Shown(panel=Panel.TRAINING),
        Field(
            description="Share of fine-tuning during which removed activations fade; 0: "
            "gone at once."
        ),
    ] = 0.5
    features: Annotated[
        float,
        Shown(panel=Panel.TRAINING),
        Field(
            ge=0,
            description="Weight of following the original's features too; 0: its "
            "outputs alone.",
        ),
    ] = 0.0
    free_activations: Annotated[
        bool,
        Shown(panel=Panel.TRAINING),
        Field(description="Add one after each merged convolution that has none."),
    ] = False


# MobileNetV2 on scikit-learn's digits, trained from scratch: what `compress -o RUN` runs
# when it is given nothing else.
EXAMPLE = Settings(
    model="torchvision:mobilenet_v2",
    model_args={"num_classes": 10},
    input=(3, 32, 32),
    data="digits",
    target=Target(batch=32),
    budget="65%",
    scoring=Scoring(recipe=changed(SCORE, steps=8)),
    pretrain=Recipe(epochs=20, batch_size=64, lr=0.1, warmup=0.3, schedule="onecycle"),
    finetune=Recipe(epochs=12, batch_size=64, lr=0.05, distill_weight=0.5),
)
S = TypeVar("S", bound=RunSettings)


def read_settings(path: Path, kind: type[S]) -> S:
    """The settings in a run folder.

    Raises:
        BadInput: they are damaged, or of a release that wrote them in another way.
        UsageError: they are of another verb.
    """
    text = path.read_bytes()
    try:
        said: Any = json.loads(text)
    except ValueError:
        said = None
    if isinstance(said, dict):
        if said.get("version") == 1:
            raise BadInput(
                f"{path} is of an earlier release, whose runs cannot be gone on with.",
                "Run the same command with another folder; --latency "
                f"{path.parent / 'latency.csv'} saves measuring again.",
            )
        if said.get("verb") in {"compress", "shrink"} - {verb_of(kind)}:
            raise UsageError(
                f"{path.parent} holds a run of another verb than {verb_of(kind)}.",
                "Choose another folder.",
            )
    return parse(kind, text, path)


def verb_of(kind: type[RunSettings]) -> str:
    """The verb that runs these settings."""
    return str(kind.model_fields["verb"].default)


def _absolute(path: str) -> str:
    return str(Path(path).resolve())
