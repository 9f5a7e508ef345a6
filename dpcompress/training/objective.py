"""The loss of a training step: labels, a teacher, and what a method adds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dpcompress.settings import Recipe


@dataclass(frozen=True)
class Extension:
    """The schedules and loss terms that a method adds to plain training.

    on_step: called before every step with the fraction of all steps done, in [0, 1), and
        with 1.0 after the last; whatever it sets (a decay, a temperature) must depend on
        that fraction only, so that a resumed run goes on as it was.
    extra_loss: (images, logits) → a scalar that is added to the loss. It is called after
        the forward passes of the network and the teacher, whose features hooks may keep.
    settings: JSON-like; a checkpoint made with other settings is not resumed.
    """

    on_step: Callable[[float], None] = lambda done: None
    extra_loss: Callable[[Tensor, Tensor], Tensor] | None = None
    settings: Any = None


def objective(
    images: Tensor,
    labels: Tensor,
    logits: Tensor,
    recipe: Recipe,
    teacher: nn.Module | None,
    extension: Extension,
) -> Tensor:
    """Compute the scalar loss of `logits`, float32; see `Recipe` and `Extension`."""
    logits = logits.float()
    loss = F.cross_entropy(logits, labels, label_smoothing=recipe.label_smoothing)
    share, temperature = recipe.distill_weight, recipe.distill_temperature
    if teacher is not None and share > 0:
        with torch.no_grad():
            target = F.log_softmax(teacher(images).float() / temperature, 1)
        ours = F.log_softmax(logits / temperature, 1)
        divergence = F.kl_div(ours, target, reduction="batchmean", log_target=True)
        loss = (1 - share) * loss + share * temperature**2 * divergence
    if extension.extra_loss is not None:
        loss = loss + extension.extra_loss(images, logits)
    return loss
