"""Everything that decides what a run does, as plain frozen data in RUN/run.json."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from dpcompress.blueprint import Limits
from dpcompress.importance import Estimator, Finetune, Fit
from dpcompress.training import Recipe

Scalar = bool | int | float | str | None


class Scoring(BaseModel):
    """How importance is scored: the estimator, its recipe ("finetune") or number of
    calibration images ("fit"), what is read off, the shift."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    estimator: Literal["finetune", "fit"] = "finetune"
    recipe: Recipe = Finetune().recipe
    images: Annotated[int, Field(ge=1)] = Fit().images
    metric: Literal["accuracy", "loss", "logits"] = "loss"
    alpha: float = 1.2

    @property
    def chosen(self) -> Estimator:
        if self.estimator == "fit":
            return Fit(images=self.images, seed=self.recipe.seed)
        return Finetune(self.recipe)


class Settings(BaseModel):
    """A run of `compress`.

    pretrain: recipe for training the network from scratch first; None to use `weights`.
    latency: a latency table made before, instead of measuring one.
    measure: whether planned networks are built and measured until one is *measured* to
        fit the budget; None: where the table is measured too, as one made before may be
        of another machine.
    budget: as `parse_budget` takes it, end to end.
    device: cpu or cuda, None for the engine's usual one.
    train: "none" fits the plan's spans to the original, without labels or training.
    form: what is fine-tuned: the "linearized" network, before it is merged exactly, or
        the "merged" one, starting from spans that were fitted.
    images: unlabelled ones that spans are fitted on.
    threads: of the engine and of the measurements; None takes all cores.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    model: str
    model_args: dict[str, Scalar | list[Scalar]] = {}
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
    budget: str
    latency: str | None = None
    measure: bool | None = None
    limits: Limits = Limits()
    scoring: Scoring = Scoring()
    train: Literal["finetune", "none"] = "finetune"
    form: Literal["linearized", "merged"] = "linearized"
    images: Annotated[int, Field(ge=1)] = 1024
    finetune: Recipe = Recipe(epochs=20, distill_weight=0.5)
    seed: int = 0

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.weights is not None and self.pretrain is not None:
            raise ValueError("give weights or a recipe to train from scratch, not both")
        return self

    @property
    def measures(self) -> bool:
        return self.latency is None if self.measure is None else self.measure

    @property
    def fits(self) -> bool:
        """Whether spans are fitted, not merged exactly."""
        return self.train == "none" or self.form == "merged"

    def seeded(self, seed: int) -> Self:
        """The same run with another seed everywhere."""
        recipes: dict[str, Any] = {
            "finetune": self.finetune.model_copy(update={"seed": seed}),
            "scoring": self.scoring.model_copy(
                update={"recipe": self.scoring.recipe.model_copy(update={"seed": seed})}
            ),
        }
        if self.pretrain is not None:
            recipes["pretrain"] = self.pretrain.model_copy(update={"seed": seed})
        return self.model_copy(update={"seed": seed, **recipes})


EXAMPLE = Settings(
    model="torchvision:mobilenet_v2",
    model_args={"num_classes": 10},
    input=(3, 32, 32),
    data="digits",
    batch=32,
    budget="65%",
    pretrain=Recipe(epochs=24, batch_size=64, lr=0.1, warmup=0.3, schedule="onecycle"),
    finetune=Recipe(epochs=15, batch_size=64, lr=0.05, distill_weight=0.5),
)
"""MobileNetV2 on scikit-learn's digits, trained from scratch: what `compress -o RUN`
runs when it is given nothing else."""


def read_settings(path: Path) -> Settings:
    from dpcompress.blueprint.data import parse

    return parse(Settings, path.read_bytes(), path)
