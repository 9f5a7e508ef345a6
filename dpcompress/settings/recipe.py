"""What a training run does, as plain frozen data."""

from __future__ import annotations

from math import cos, pi
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from dpcompress.blueprint.data import Frozen

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]

SEED_FIELD = Field(description="Seed of everything random.")


class Recipe(Frozen):
    """A training by SGD with momentum, as in Kim et al. 2023 and DepthShrinker.

    The loss is (1 − w)·CE + w·T²·KL(teacher ‖ student) with the share w =
    `distill_weight`, both softened by the temperature T; without a teacher it is CE.
    The learning rate rises linearly ("onecycle": along a cosine, from lr/25) over the
    warm-up, then falls to 0 along a cosine or, if "constant", stays.
    """

    epochs: Annotated[Count, Field(description="Passes over the training images.")] = 20
    steps: Annotated[
        Count | None,
        Field(
            description="Length in steps, instead of epochs. For scores, more steps rank "
            "spans better: 64 steps of 64 images ranked CIFAR-10's well."
        ),
    ] = None
    batch_size: Annotated[int, Field(ge=2, description="Images per step.")] = 128
    lr: Annotated[
        Positive,
        Field(description="Highest learning rate, reached at the end of the warm-up."),
    ] = 0.05
    warmup: Annotated[
        Fraction, Field(description="Share of all steps until --lr is reached.")
    ] = 0.1
    schedule: Annotated[
        Literal["cosine", "onecycle", "constant"],
        Field(description="Course of the learning rate."),
    ] = "cosine"
    momentum: Annotated[Fraction, Field(description="Momentum of SGD.")] = 0.9
    nesterov: Annotated[bool, Field(description="Use Nesterov's momentum.")] = True
    weight_decay: Annotated[
        float,
        Field(
            ge=0, description="Pull of the weights to 0; norms and biases are left out."
        ),
    ] = 5e-4
    label_smoothing: Annotated[
        Fraction, Field(description="Share of the target spread over all classes.")
    ] = 0.0
    distill_weight: Annotated[
        Fraction,
        Field(
            description="Share of the loss that follows the original network's outputs; "
            "0 follows the labels alone."
        ),
    ] = 0.0
    distill_temperature: Annotated[
        Positive, Field(description="Softens both outputs before they are compared.")
    ] = 2.0
    grad_clip: Annotated[
        Positive | None,
        Field(description="Largest norm of the whole gradient. Without it: any."),
    ] = 5.0
    augment: Annotated[
        bool,
        Field(
            description="Crop the training images at random, and flip them where the "
            "data allows it."
        ),
    ] = True
    precision: Annotated[
        Literal["fp32", "bf16", "fp16"],
        Field(
            description="Numbers of the forward and backward pass; weights stay fp32. "
            "fp16 scales its gradients."
        ),
    ] = "fp32"
    compile: Annotated[
        bool,
        Field(description="Compile the network first: pays off in runs of many minutes."),
    ] = False
    seed: Annotated[int, SEED_FIELD] = 0

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov needs a momentum above 0")
        return self

    def lr_at(self, step: int, total: int) -> float:
        """Compute the learning rate of step `step` (from 0) of `total`."""
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


# The fine-tuning of a compressed network.
FINETUNE = Recipe(epochs=20, batch_size=128, lr=0.01, distill_weight=0.5)
# The training of a network from scratch.
PRETRAIN = Recipe(lr=0.1, schedule="onecycle")
# The search for masks, which are trained together with the weights.
SEARCH = Recipe(epochs=10, distill_weight=0.5)
# The short training that scores one span: for small images, within minutes.
SCORE = Recipe(steps=10, batch_size=32, lr=0.04, warmup=0.25, augment=False)
