"""DepthShrinker, and channel pruning by torch-pruning, for the comparison.

`pip install torch-pruning` for the latter; nothing else in the project uses it.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dpcompress.blueprint import Blueprint, Plan
from dpcompress.cli.output import progress_bar
from dpcompress.depthshrinker import By, Merger, finetune, search
from dpcompress.depthshrinker.plans import kept_activations
from dpcompress.errors import InfeasibleBudget
from dpcompress.files import digest, write_text
from dpcompress.graph import merge
from dpcompress.progress import Progress, silent
from dpcompress.tables import LatencyTable
from dpcompress.training import Data, Recipe, state_digest


def shrunk_plan(
    model: nn.Module,
    blueprint: Blueprint,
    data: Data,
    latency: LatencyTable,
    budget_ms: float,
    *,
    by: By = "block",
    latency_weight: float = 0.0,
    recipe: Recipe,
    folder: Path,
    progress: Progress = silent,
) -> Plan:
    """DepthShrinker's plan within a budget: of the masks that a search for half of them
    ranks highest, as many as are predicted to fit.

    DepthShrinker asks for a number of masks, not for a time; one search per number would
    be many trainings, so all budgets share one, kept in `folder`.

    Raises:
        InfeasibleBudget: with no mask on, the network still takes longer.
    """
    identity = [by, latency_weight, recipe.model_dump(), data.digest]
    key = digest([*identity, state_digest(model), latency.digest])
    path = folder / f"masks_{by}_{key}.json"
    if not path.exists():
        from dpcompress.depthshrinker import mask_groups

        groups = mask_groups(blueprint, by)
        found = search(
            *(model, blueprint, data, len(groups) // 2),
            by=by,
            recipe=recipe,
            latency=latency,
            latency_weight=latency_weight,
            teacher=model,
            checkpoint=path.with_suffix(".checkpoint"),
            progress=progress,
        )
        last = found.history[found.history["done"] == 1.0]
        scores = last.sort_values("mask")["score"].tolist()
        write_text(path, json.dumps({"groups": groups, "scores": scores}) + "\n")
        path.with_suffix(".checkpoint").unlink(missing_ok=True)
    stored = json.loads(path.read_text())
    groups = tuple(map(tuple, stored["groups"]))
    scores = stored["scores"]
    ranked = sorted(range(len(scores)), key=lambda mask: -scores[mask])
    merger = Merger(blueprint, latency)
    for keep in range(len(groups), -1, -1):
        plan = merger.plan(kept_activations(blueprint, groups, ranked[:keep]))
        if (plan.latency_ms or 0.0) <= budget_ms:
            return plan
    raise InfeasibleBudget(
        f"With all {len(groups)} masks off, the network takes {plan.latency_ms:.4g} ms, "
        f"more than {budget_ms:.4g} ms.",
        "Ask for more.",
        least_ms=plan.latency_ms or 0.0,
    )


def shrunk(
    model: nn.Module,
    plan: Plan,
    data: Data,
    recipe: Recipe,
    checkpoint: Path | None = None,
) -> nn.Module:
    """Fine-tuned with self-distillation while the activations fade, and merged."""
    with progress_bar("Train") as progress:
        network = finetune(
            model, plan, data, recipe, checkpoint=checkpoint, progress=progress
        )
    merged: nn.Module = merge(network)[0]
    return merged


def pruned(
    model: nn.Module, share: float, input_shape: tuple[int, int, int]
) -> nn.Module:
    """A copy of `model` with about `share` of the channels, everywhere alike, those with
    the largest norms over the groups that must go together (Fang et al. 2023)."""
    import torch_pruning

    network: Any = copy.deepcopy(model).eval()
    for parameter in network.parameters():
        parameter.requires_grad_(True)
    heads = [m for m in network.modules() if isinstance(m, nn.Linear)]
    pruner = torch_pruning.pruner.MagnitudePruner(
        network,
        torch.zeros(1, *input_shape),
        importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
        pruning_ratio=1 - share,
        ignored_layers=heads[-1:],
    )
    pruner.step()
    result: nn.Module = network
    return result
