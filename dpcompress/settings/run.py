"""Everything that decides what a run does, as plain frozen data in RUN/run.json."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    ValidationError,
    model_validator,
)

from dpcompress.blueprint import Limits
from dpcompress.blueprint.data import parse
from dpcompress.errors import UsageError
from dpcompress.runner import Target
from dpcompress.settings.recipe import SCORE, Recipe

By = Literal["activation", "block"]
Metric = Literal["accuracy", "loss", "logits"]


class Scoring(BaseModel):
    """How importance is scored: the estimator, its recipe ("finetune") or number of
    calibration images ("fit"), what is read off, the shift."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    estimator: Literal["finetune", "fit"] = "finetune"
    recipe: Recipe = SCORE
    images: Annotated[int, Field(ge=1)] = 512
    metric: Metric = "loss"
    alpha: float | None = None


class RunSettings(BaseModel):
    """What every run says, whatever method it uses.

    pretrain: recipe for training the network from scratch first; None to use `weights`.
    device: cpu or cuda, None for the engine's usual one.
    latency: a latency table made before.
    threads: of the engine and of the measurements; None takes all cores.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    verb: ClassVar[str]

    version: Literal[1] = 1
    model: str
    model_args: dict[str, JsonValue] = {}
    weights: str | None = None
    pretrain: Recipe | None = None
    input: tuple[int, int, int]
    data: str
    resize: int | None = None
    crop: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    engine: str = "onnxruntime"
    precision: str = "fp32"
    device: str | None = None
    threads: int | None = None
    batch: Annotated[int, Field(ge=1)] = 1
    latency: str | None = None
    limits: Limits = Limits()
    finetune: Recipe = Recipe(epochs=20, distill_weight=0.5)
    seed: int = 0

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.weights is not None and self.pretrain is not None:
            raise ValueError("give weights or train from scratch, not both")
        return self

    @property
    def target(self) -> Target:
        """What networks and their parts are measured on."""
        return Target(self.engine, self.device, self.precision, self.threads, self.batch)

    def seeded(self, seed: int) -> Self:
        """The same run with another seed everywhere."""
        recipes: dict[str, Any] = {
            name: value.model_copy(update={"seed": seed})
            for name, value in self
            if isinstance(value, Recipe)
        }
        return self.model_copy(update={"seed": seed, **recipes})


class Settings(RunSettings):
    """A run of `compress`.

    latency: a table to use instead of measuring one.
    measure: whether planned networks are built and measured until one is *measured* to
        fit the budget; None: where the table is measured too, as one made before may be
        of another machine.
    budget: as `parse_budget` takes it, end to end.
    train: "none" fits the plan's spans to the original, without labels or training.
    form: what is fine-tuned: the "linearized" network, before it is merged exactly, or
        the "merged" one, starting from spans that were fitted.
    images: unlabelled ones that spans are fitted on.
    """

    verb: ClassVar[str] = "compress"
    budget: str
    measure: bool | None = None
    scoring: Scoring = Scoring()
    train: Literal["finetune", "none"] = "finetune"
    form: Literal["linearized", "merged"] = "linearized"
    images: Annotated[int, Field(ge=1)] = 1024

    @property
    def measures(self) -> bool:
        """Whether planned networks are measured to choose among them."""
        return self.latency is None if self.measure is None else self.measure

    @property
    def fits(self) -> bool:
        """Whether spans are fitted, not merged exactly."""
        return self.train == "none" or self.form == "merged"

    @property
    def trains(self) -> bool:
        """Whether the compressed network is fine-tuned."""
        return self.train == "finetune"

    def seeded(self, seed: int) -> Self:
        recipe = self.scoring.recipe.model_copy(update={"seed": seed})
        scoring = self.scoring.model_copy(update={"recipe": recipe})
        return super().seeded(seed).model_copy(update={"scoring": scoring})


class ShrinkSettings(RunSettings):
    """A run of `shrink`.

    keep, by, latency_weight: see `depthshrinker.search`; its recipe is `search`.
    latency: a table that weighs the masks and chooses where to cut.
    fade, features: see `depthshrinker.finetune`.
    free_activations: see `depthshrinker.Merger.plan`.
    """

    verb: ClassVar[str] = "shrink"
    keep: int
    by: By = "activation"
    search: Recipe = Recipe(epochs=10, distill_weight=0.5)
    latency_weight: Annotated[float, Field(ge=0)] = 1.0
    fade: Annotated[float, Field(ge=0, le=1)] = 0.5
    features: Annotated[float, Field(ge=0)] = 0.0
    free_activations: bool = False


EXAMPLE = Settings(
    model="torchvision:mobilenet_v2",
    model_args={"num_classes": 10},
    input=(3, 32, 32),
    data="digits",
    batch=32,
    budget="65%",
    scoring=Scoring(recipe=SCORE.model_copy(update={"steps": 8})),
    pretrain=Recipe(epochs=20, batch_size=64, lr=0.1, warmup=0.3, schedule="onecycle"),
    finetune=Recipe(epochs=12, batch_size=64, lr=0.05, distill_weight=0.5),
)
"""MobileNetV2 on scikit-learn's digits, trained from scratch: what `compress -o RUN`
runs when it is given nothing else."""


S = TypeVar("S", bound=RunSettings)


def read_settings(path: Path, kind: type[S]) -> S:
    """The settings in a run folder.

    Raises:
        BadInput: they are damaged.
        UsageError: they are of another verb.
    """
    text = path.read_bytes()
    others = (k for k in (Settings, ShrinkSettings) if k is not kind)
    if any(_fits(other, text) for other in others):
        raise UsageError(
            f"{path.parent} holds a run of another verb than {kind.verb}.",
            "Choose another folder.",
        )
    return parse(kind, text, path)


def _fits(kind: type[RunSettings], text: bytes) -> bool:
    try:
        kind.model_validate_json(text)
    except ValidationError:
        return False
    return True
