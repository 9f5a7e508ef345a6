"""What a comparison does, as plain frozen data in one JSON file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from dpcompress.blueprint.data import parse
from dpcompress.importance import Finetune
from dpcompress.runner import Target
from dpcompress.training import Recipe

Count = Annotated[int, Field(ge=1)]


class Config(BaseModel):
    """A comparison of methods at equal measured speed and equal training.

    methods: names in `methods.METHODS`, in the order in which they are run, and with how
        many seeds each (of training, and of what a method draws).
    speedups: budgets, of measured time.
    recipe: of every training; the seed is replaced.
    scoring: of every entry of the importance table that is made by fine-tuning;
        renew: whether single layers start from new weights; free_activations: whether
        that table has entries with added ones.
    search: of DepthShrinker's masks.
    train_images, heldout_images, test_images: how many are used, of all classes alike;
        None for all.
    calibration_images: unlabelled ones, for fitting.
    engine, batch, threads: that speed is measured with. tolerance: how far the measured
        speed-up of a network may be from the budget before another one is tried.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    methods: dict[str, Count]
    speedups: tuple[Annotated[float, Field(gt=1)], ...]
    recipe: Recipe
    scoring: Recipe = Finetune().recipe
    renew: bool = True
    free_activations: bool = True
    search: Recipe = Recipe(steps=100)
    metric: Literal["accuracy", "loss"] = "loss"
    alpha: float = 1.2
    train_images: Count | None = None
    heldout_images: Count | None = None
    test_images: Count | None = None
    calibration_images: Count = 768
    engine: str = "onnxruntime"
    batch: Count = 32
    threads: Count = 2
    tolerance: Annotated[float, Field(gt=0)] = 0.02
    tries: Count = 5
    measure_seconds: Annotated[float, Field(gt=0)] = 8.0

    @property
    def target(self) -> Target:
        return Target(self.engine, threads=self.threads, batch=self.batch)


def read_config(path: Path) -> Config:
    """
    Raises:
        BadInput: not a config; names the first faulty field.
    """
    return parse(Config, path.read_bytes(), path)
