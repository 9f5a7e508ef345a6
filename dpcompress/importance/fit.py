"""The training-free estimator: replace a span by a fitted convolution and look."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from dpcompress.blueprint import Blueprint, MergedSpan, examine
from dpcompress.errors import BadInput
from dpcompress.graph.fit_merged import LEAST_IMAGES
from dpcompress.graph.span_fit import (
    LEAST_SAMPLES,
    RIDGE,
    SAMPLES_PER_UNKNOWN,
    UNKNOWNS,
    Original,
)
from dpcompress.importance.protocol import Entry, Job
from dpcompress.training import Data, check_classes, predict_logits


@dataclass(frozen=True)
class Fit:
    """Each span's merged convolution is fitted by least squares to what the original
    gives at the span's end, on unlabelled training images, and held-out images tell what
    the network is then worth. Nothing is trained: seconds per span, not minutes.

    A single layer has nothing to remove and changes nothing; free activations, which
    help only after training, are not tried.

    Besides accuracy and loss there are "logits", the mean Kullback-Leibler divergence
    from the original's outputs in nats, which needs no labels, and "residual", what the
    convolution leaves unexplained (root mean square over standard deviation).

    images, heldout: how many to fit on and to look at; drawn with `seed`.
    """

    images: int = 512
    heldout: int = 1000
    ridge: float = RIDGE
    seed: int = 0

    alpha = 1.0
    free_activations = False
    metrics = ("loss", "accuracy", "logits")

    @property
    def identity(self) -> dict[str, Any]:
        return {
            "name": "fit",
            "images": self.images,
            "heldout": self.heldout,
            "ridge": self.ridge,
            "seed": self.seed,
            "samples": [UNKNOWNS, SAMPLES_PER_UNKNOWN, LEAST_SAMPLES],
        }

    def jobs(self, entries: Sequence[Entry | None]) -> list[Job]:
        """Spans that begin at one position share most of the work."""
        single = tuple(e for e in entries if e is None or e.span.length == 1)
        longer = sorted({e for e in entries if e is not None} - set(single))
        by_start = groupby(longer, key=lambda entry: entry.start)
        return [single] * bool(single) + [tuple(group) for _, group in by_start]

    def __call__(
        self, model: nn.Module, blueprint: Blueprint, data: Data, job: Job
    ) -> list[dict[str, float]]:
        heldout = data.heldout.sample(self.heldout, self.seed)
        if job[0] is None or job[0].span.length == 1:
            logits = predict_logits(model, heldout)
            return [_metrics(logits, logits, heldout.labels, 0.0)] * len(job)
        found = (examine(blueprint, entry.span) for entry in job if entry)
        spans = [span for span in found if isinstance(span, MergedSpan)]
        images = calibration_images(data, self.images, self.seed)
        original = Original(model, blueprint.input)
        convs = original.fit(spans, images, self.ridge)
        plain, outputs = original.outputs(heldout.first(len(heldout)), spans, convs)
        return [
            _metrics(plain, output, heldout.labels, conv.residual)
            for output, conv in zip(outputs, convs, strict=True)
        ]


def calibration_images(data: Data, count: int, seed: int = 0) -> Tensor:
    """`count` images of the training set (or all), drawn with `seed` and prepared as the
    network takes them, (N, C, H, W). Their labels are not looked at.

    Raises:
        BadInput: fewer than can be fitted on.
    """
    if min(count, len(data.train)) < LEAST_IMAGES:
        raise BadInput(
            f"A fit needs {LEAST_IMAGES} calibration images, not "
            f"{min(count, len(data.train))}.",
            "Ask for more, or give more training images.",
        )
    drawn = data.train.sample(count, seed)
    return drawn.first(len(drawn))


def _metrics(
    plain: Tensor, output: Tensor, labels: Tensor, residual: float
) -> dict[str, float]:
    check_classes(output, int(labels.max()) + 1)
    ours, theirs = (F.log_softmax(x.double(), 1) for x in (output, plain))
    return {
        "accuracy": (output.argmax(1) == labels).double().mean().item(),
        "loss": F.nll_loss(ours, labels).item(),
        "logits": F.kl_div(ours, theirs, reduction="batchmean", log_target=True).item(),
        "residual": residual,
    }
