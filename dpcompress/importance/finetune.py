"""The published estimator: remove activations, train briefly, look at held-out images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import nn

from dpcompress.blueprint import Blueprint, Plan
from dpcompress.graph import linearize
from dpcompress.importance.entries import plan_of
from dpcompress.importance.protocol import Chunk, Scores
from dpcompress.settings import SCORE, Recipe
from dpcompress.tables import ScoreKey
from dpcompress.training import Data, evaluate, finetune, seeded

# Trainings of at least this many steps re-initialise single layers, as published.
RENEWING_STEPS = 200

_NORMS = nn.modules.batchnorm._BatchNorm


class Trained(NamedTuple):
    """The original network and what it is trained and evaluated with."""

    model: nn.Module
    blueprint: Blueprint
    data: Data


class Variant(NamedTuple):
    """The network that is trained to score an entry.

    plan: of the linearized network.
    renewed: the layer that starts from new weights, if any.
    """

    plan: Plan
    renewed: int | None


@dataclass(frozen=True)
class Finetune:
    """The published estimator: fine-tune the linearized network with `recipe`.

    Source: Kim et al. 2023, section 4.
    A single layer has nothing to remove: as published, it starts from new weights
    instead, or short spans would look too good. All entries see the same batches
    (recipe.seed), so that their differences do not come from the batches.

    recipe: the default is for small images and minutes; more steps rank spans better.
    renew: whether single layers start from new weights, which takes hundreds of steps to
        make up for: after fewer, their scores would tell how fast a layer is learnt, not
        what it is worth. None: for whole epochs, or for `RENEWING_STEPS` steps
        or more.
    norm_momentum: least momentum of batch norms, so that their statistics settle within
        a few steps.
    free_activations: try added activations; they pay off in long trainings, and double
        the entries.
    """

    recipe: Recipe = SCORE
    renew: bool | None = None
    norm_momentum: float = 0.3
    free_activations: bool = True

    metrics = ("loss", "accuracy")

    @property
    def renews(self) -> bool:
        """Whether single layers start from new weights."""
        if self.renew is None:
            return (self.recipe.steps or RENEWING_STEPS) >= RENEWING_STEPS
        return self.renew

    @property
    def alpha(self) -> float:
        """The published 1.2, or 1 where single layers have nothing to make up for."""
        return 1.2 if self.renews else 1.0

    @property
    def settings(self) -> dict[str, Any]:
        """The name and all settings, as JSON."""
        settings = {
            "name": "finetune",
            "recipe": self.recipe.model_dump(),
            "norm_momentum": self.norm_momentum,
        }
        return settings if self.renews else {**settings, "renew": False}

    def chunks(self, entries: Sequence[ScoreKey | None]) -> list[Chunk]:
        """Part `entries`: single layers that keep their weights, and each other one.

        Those single layers are often one and the same network, which is trained once.
        """
        together: list[ScoreKey | None] = []
        apart: list[ScoreKey | None] = []
        for entry in entries:
            is_single = entry is not None and entry.span.length == 1
            chosen = together if is_single and not self.renews else apart
            chosen.append(entry)
        chunks: list[Chunk] = [(entry,) for entry in apart]
        return [tuple(together), *chunks] if together else chunks

    def prepare(self, model: nn.Module, blueprint: Blueprint, data: Data) -> Trained:
        """Keep the arguments together; there is nothing to prepare."""
        return Trained(model, blueprint, data)

    def score(self, state: Trained, entries: Sequence[ScoreKey | None]) -> list[Scores]:
        """Return held-out accuracy and loss (nats) of each entry's network, trained."""
        variants = [self._variant(state.blueprint, entry) for entry in entries]
        scores = {v: self._score(state, v) for v in dict.fromkeys(variants)}
        return [scores[variant] for variant in variants]

    def _variant(self, blueprint: Blueprint, entry: ScoreKey | None) -> Variant | None:
        """Return the network to train for an entry; None for the original as it is."""
        if entry is None:
            return None
        renews = self.renews and entry.span.length == 1
        return Variant(plan_of(blueprint, entry), entry.stop if renews else None)

    def _score(self, state: Trained, variant: Variant | None) -> Scores:
        network = state.model
        if variant is not None:
            network = linearize(state.model, variant.plan)
            if variant.renewed is not None:
                self._renew(network, state.blueprint, variant.renewed)
            for module in network.modules():
                if isinstance(module, _NORMS) and module.momentum is not None:
                    module.momentum = max(module.momentum, self.norm_momentum)
            finetune(network, state.data, self.recipe, validate=False)
        metrics = evaluate(network, state.data.heldout)
        return {"accuracy": metrics.accuracy, "loss": metrics.loss}

    def _renew(self, network: nn.Module, blueprint: Blueprint, number: int) -> None:
        """Give layer `number`, its conv and the norms after it, new weights."""
        layer = blueprint.layers[number - 1]
        with seeded(self.recipe.seed, "renew", number):
            for index in (layer.conv, *layer.tail):
                op = blueprint.ops[index]
                if op.kind in ("conv", "norm"):
                    _renewed(network.get_submodule(op.name))


def _renewed(module: nn.Module) -> None:
    """Reset a module's weights; a frozen norm, which cannot, is made the identity."""
    reset = getattr(module, "reset_parameters", None)
    if reset is not None:
        reset()
        return
    for name, buffer in module.named_buffers():
        buffer.fill_(1.0 if name in ("weight", "running_var") else 0.0)
