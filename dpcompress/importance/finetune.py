"""The published estimator: remove, fine-tune briefly, look at held-out images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from dpcompress.blueprint import Blueprint
from dpcompress.graph import linearize
from dpcompress.importance.entries import plan_of
from dpcompress.importance.protocol import Entry, Job
from dpcompress.settings import SCORE, Recipe
from dpcompress.training import Data, evaluate, finetune, seeded

RENEWING_STEPS = 200
"""From which on single layers are renewed, and short trainings end."""

_NORMS = nn.modules.batchnorm._BatchNorm


@dataclass(frozen=True)
class Finetune:
    """Kim et al. 2023, section 4: the linearized network is fine-tuned with `recipe`.

    A single layer has nothing to remove: as published, it starts from new weights
    instead, or short spans would look too good. All entries see the same batches
    (recipe.seed), which takes out of their differences what the batches contribute.

    renew: single layers start from new weights, as published, which takes hundreds of
        steps to make up for. In a shorter training their scores would tell how fast a
        layer is learnt, not what it is worth: then they keep their own. None decides
        by the number of steps (`RENEWING_STEPS`).
    norm_momentum: of the batch norms, so that a few steps settle their statistics.
    free_activations: try added ones; they pay off in long trainings, and double the
        entries.
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
        """As published, or, where single layers have nothing to make up for, 1."""
        return 1.2 if self.renews else 1.0

    @property
    def identity(self) -> dict[str, Any]:
        kept = {} if self.renews else {"renew": False}
        return {
            "name": "finetune",
            "recipe": self.recipe.model_dump(),
            "norm_momentum": self.norm_momentum,
            **kept,
        }

    def jobs(self, entries: Sequence[Entry | None]) -> list[Job]:
        """One per entry; single layers with their own weights are often one network."""
        single: list[Entry | None] = []
        if not self.renews:
            single = [e for e in entries if e is not None and e.span.length == 1]
        others: list[Job] = [(e,) for e in entries if e not in single]
        return [tuple(single)] * bool(single) + others

    def __call__(
        self, model: nn.Module, blueprint: Blueprint, data: Data, job: Job
    ) -> list[dict[str, float]]:
        if self.renews or job[0] is None or job[0].span.length > 1:
            return [self._score(model, blueprint, data, entry) for entry in job]
        plans = [plan_of(blueprint, entry) for entry in job if entry]
        scores = {
            plan: self._score(model, blueprint, data, entry)
            for plan, entry in dict(zip(plans, job, strict=True)).items()
        }
        return [scores[plan] for plan in plans]

    def _score(
        self, model: nn.Module, blueprint: Blueprint, data: Data, entry: Entry | None
    ) -> dict[str, float]:
        network = model
        if entry is not None:
            network = linearize(model, plan_of(blueprint, entry))
            if entry.span.length == 1 and self.renews:
                self._renew(network, blueprint, entry.stop)
            for module in network.modules():
                if isinstance(module, _NORMS) and module.momentum is not None:
                    module.momentum = max(module.momentum, self.norm_momentum)
            finetune(network, data, self.recipe, validate=False)
        metrics = evaluate(network, data.heldout)
        return {"accuracy": metrics.accuracy, "loss": metrics.loss}

    def _renew(self, network: nn.Module, blueprint: Blueprint, number: int) -> None:
        """New weights for layer `number`: its conv and the norms after it."""
        layer = blueprint.layers[number - 1]
        with seeded(self.recipe.seed, "renew", number):
            for index in (layer.conv, *layer.tail):
                op = blueprint.ops[index]
                if op.kind in ("conv", "norm"):
                    _renewed(network.get_submodule(op.name))


def _renewed(module: nn.Module) -> None:
    reset = getattr(module, "reset_parameters", None)
    if reset is not None:
        return reset()
    for name, buffer in module.named_buffers():  # a frozen norm: let it change nothing
        buffer.fill_(1.0 if name in ("weight", "running_var") else 0.0)
