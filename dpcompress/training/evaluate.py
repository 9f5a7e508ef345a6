"""The outputs of a network on images, its accuracy and its loss."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dpcompress.errors import BadInput
from dpcompress.progress import Progress, silent
from dpcompress.training.images import Batches, Split


@dataclass(frozen=True)
class Metrics:
    """The accuracy in 0..1 and the mean cross-entropy in nats, over `count` images."""

    accuracy: float
    loss: float
    count: int


def predict_logits(
    model: nn.Module, split: Split, batch: int = 64, progress: Progress = silent
) -> Tensor:
    """Return the model's outputs in eval mode, float32 (len(split), classes), on the CPU.

    It runs on the device of its weights; its training mode is left as it was.
    """
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    modes = {module: module.training for module in model.modules()}
    model.eval()
    batches, outputs = Batches(split, batch), []
    try:
        with torch.inference_mode():
            for images, _ in batches.epoch():
                outputs.append(model(images.to(device)).float().cpu())
                progress(len(outputs), len(batches))
    finally:
        for module, mode in modes.items():
            module.training = mode
    return torch.cat(outputs).clone()


def evaluate(
    model: nn.Module, split: Split, batch: int = 64, progress: Progress = silent
) -> Metrics:
    """Compute the top-1 accuracy and the cross-entropy of `model` on a split.

    Raises:
        BadInput: the model has fewer outputs than the split has classes.
    """
    logits = predict_logits(model, split, batch, progress)
    check_classes(logits, int(split.labels.max()) + 1)
    loss = F.cross_entropy(logits.double(), split.labels)
    right = (logits.argmax(1) == split.labels).double().mean()
    return Metrics(right.item(), loss.item(), len(split))


def check_above_chance(metrics: Metrics, classes: int) -> None:
    """Refuse a network that is no better than guessing, by three standard errors.

    Raises:
        BadInput: with both numbers.
    """
    chance = 1 / classes
    margin = 3 * sqrt(chance * (1 - chance) / metrics.count)
    if metrics.accuracy <= chance + margin:
        raise BadInput(
            f"The network is right on {metrics.accuracy:.1%} of {metrics.count} images, "
            f"which is near chance ({chance:.1%}).",
            "Give trained weights (--weights), and images prepared as they were in "
            "training (--resize, --crop, --mean, --std).",
        )


def check_classes(logits: Tensor, classes: int, *, exactly: bool = False) -> None:
    """Refuse outputs with fewer scores than `classes`, or, if `exactly`, with more.

    Raises:
        BadInput: with both numbers.
    """
    found = logits.shape[1] if logits.dim() == 2 else 0
    if found < classes or (exactly and found != classes):
        shape = tuple(logits.shape[1:])
        raise BadInput(
            f"The data has {classes} classes, the model's output per image is {shape}.",
            "Give the model as many outputs as there are classes (--model-args "
            f"num_classes={classes}), or other data.",
        )
