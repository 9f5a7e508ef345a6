"""DepthShrinker's choice of a plan for a budget in time."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict
from torch import nn

from dpcompress.blueprint import Blueprint, Plan
from dpcompress.blueprint.data import parse
from dpcompress.depthshrinker import By, Merger, mask_groups, search
from dpcompress.depthshrinker.plans import kept_activations
from dpcompress.errors import InfeasibleBudget
from dpcompress.files import write_text
from dpcompress.progress import Progress, silent
from dpcompress.tables import LatencyTable
from dpcompress.training import Data, Recipe


class Ranking(BaseModel):
    """Masks of a network, positions of their activations, and their scores after a search
    for half of them.

    DepthShrinker asks for a number of masks, not for a time; one search per number would
    be many trainings, so all budgets share this one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    groups: tuple[tuple[int, ...], ...]
    scores: tuple[float, ...]

    def write(self, path: Path) -> None:
        write_text(path, self.model_dump_json() + "\n")

    @classmethod
    def read(cls, path: Path) -> Ranking:
        return parse(cls, path.read_bytes(), path)

    def plan(self, blueprint: Blueprint, latency: LatencyTable, budget_ms: float) -> Plan:
        """As many of the highest masks on as are predicted to fit, merged where it is
        fastest.

        Raises:
            InfeasibleBudget: with no mask on, the network still takes longer.
        """
        count = len(self.groups)
        ranked = sorted(range(count), key=lambda mask: -self.scores[mask])
        merger = Merger(blueprint, latency)
        for keep in range(count, -1, -1):
            plan = merger.plan(kept_activations(blueprint, self.groups, ranked[:keep]))
            if (plan.predicted_ms or 0.0) <= budget_ms:
                return plan
        raise InfeasibleBudget(
            f"With all {count} masks off, the network takes {plan.predicted_ms:.4g} ms, "
            f"more than {budget_ms:.4g} ms.",
            "Ask for more.",
            least_ms=plan.predicted_ms or 0.0,
        )


def rank(
    model: nn.Module,
    blueprint: Blueprint,
    data: Data,
    by: By,
    *,
    recipe: Recipe,
    checkpoint: Path,
    progress: Progress = silent,
) -> Ranking:
    """Masks and weights trained together until half of the masks are left."""
    groups = mask_groups(blueprint, by)
    found = search(
        *(model, blueprint, data, len(groups) // 2),
        by=by,
        recipe=recipe,
        teacher=model,
        checkpoint=checkpoint,
        progress=progress,
    )
    last = found.history[found.history["done"] == 1.0].sort_values("mask")
    checkpoint.unlink(missing_ok=True)
    return Ranking(groups=groups, scores=tuple(last["score"]))
