"""What a training run does, as plain frozen data."""

from __future__ import annotations

from math import cos, pi
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]


class Recipe(BaseModel):
    """SGD with momentum, as in Kim et al. 2023 and DepthShrinker.

    epochs, steps: length; `steps` wins where both are given.
    lr: the highest learning rate, reached after the fraction `warmup` of all steps.
    schedule: "cosine" rises linearly and falls to 0; "onecycle" rises along a cosine
        from lr/25 and falls to 0; "constant" stays.
    weight_decay: on weights with two or more dimensions only (no norms, no biases).
    distill_weight: share w of the loss (1 − w)·CE + w·T²·KL(teacher ‖ student), with
        both softened by the temperature T; used where a teacher is given.
    grad_clip: largest norm of the whole gradient, or None.
    augment: random crops, and flips where the data allows them.
    precision: of the forward and backward pass; weights stay fp32. "bf16" and "fp16" use
        autocast, "fp16" with scaled gradients.
    compile: run the network through torch.compile; pays off in runs of many minutes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: Annotated[int, Field(ge=1)] = 20
    steps: Annotated[int, Field(ge=1)] | None = None
    batch_size: Annotated[int, Field(ge=2)] = 128
    lr: Positive = 0.05
    warmup: Fraction = 0.1
    schedule: Literal["cosine", "onecycle", "constant"] = "cosine"
    momentum: Fraction = 0.9
    nesterov: bool = True
    weight_decay: Annotated[float, Field(ge=0)] = 5e-4
    label_smoothing: Fraction = 0.0
    distill_weight: Fraction = 0.0
    distill_temperature: Positive = 2.0
    grad_clip: Positive | None = 5.0
    augment: bool = True
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    compile: bool = False
    seed: int = 0

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov needs a momentum above 0")
        return self

    def lr_at(self, step: int, total: int) -> float:
        """Learning rate of step `step` (from 0) of `total`."""
        rise = self.warmup * total
        if self.schedule == "constant" and step >= rise:
            return self.lr
        if step < rise:
            done = (step + 1) / (rise + 1)
            if self.schedule == "onecycle":
                low = self.lr / 25
                return low + (self.lr - low) * (1 - cos(pi * done)) / 2
            return self.lr * done
        return self.lr * (1 + cos(pi * (step - rise) / max(total - rise, 1))) / 2


SCORE = Recipe(steps=10, batch_size=32, lr=0.04, warmup=0.25, augment=False)
"""The short training that scores one span: for small images and minutes; give more steps
where there is time."""
