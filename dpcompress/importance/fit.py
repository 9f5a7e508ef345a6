"""The training-free estimator: replace a span by a fitted convolution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from dpcompress.blueprint import Blueprint, MergedSpan, examine
from dpcompress.errors import BadInput
from dpcompress.graph.fit_merged import LEAST_IMAGES
from dpcompress.graph.original import Original
from dpcompress.graph.span_fit import (
    LEAST_SAMPLES,
    RIDGE,
    SAMPLES_PER_UNKNOWN,
    UNKNOWNS,
)
from dpcompress.importance.protocol import Chunk, Scores
from dpcompress.settings import SCORE_IMAGES
from dpcompress.tables import ScoreKey
from dpcompress.training import Data, Split, check_classes, predict_logits


@dataclass(frozen=True)
class Fitting:
    """The original network and the images that all entries share.

    images: what spans are fitted on, (N, C, H, W).
    heldout, heldout_images: what networks are evaluated on, as a split and as
        (N, C, H, W).
    """

    model: nn.Module
    blueprint: Blueprint
    original: Original
    images: Tensor
    heldout: Split
    heldout_images: Tensor


@dataclass(frozen=True)
class Fit:
    """The estimator that fits each span's merged convolution by least squares.

    It is fitted to the original's values at the span's end, on unlabelled training
    images; held-out images tell what the network is then worth. Nothing is trained:
    seconds per span, not minutes.

    A single layer has nothing to remove and changes nothing; free activations, which
    help only after training, are not tried.

    Besides accuracy and loss there are "logits", the mean Kullback-Leibler divergence
    from the original's outputs in nats, which needs no labels, and "residual", what the
    convolution leaves unexplained (root mean square over standard deviation).

    images, heldout: how many to fit on and to evaluate on; drawn with `seed`.
    ridge: strength of the least squares' ridge penalty.
    """

    images: int = SCORE_IMAGES
    heldout: int = 1000
    ridge: float = RIDGE
    seed: int = 0

    alpha = 1.0
    free_activations = False
    metrics = ("loss", "accuracy", "logits")

    @property
    def settings(self) -> dict[str, Any]:
        """The name and all settings, as JSON."""
        return {
            "name": "fit",
            "images": self.images,
            "heldout": self.heldout,
            "ridge": self.ridge,
            "seed": self.seed,
            "samples": [UNKNOWNS, SAMPLES_PER_UNKNOWN, LEAST_SAMPLES],
        }

    def chunks(self, entries: Sequence[ScoreKey | None]) -> list[Chunk]:
        """Part `entries` by their first position: those of one share most of the work.

        Entries that change nothing form one chunk.
        """
        same, by_start = _parted(entries)
        chunks: list[Chunk] = [tuple(by_start[start]) for start in sorted(by_start)]
        return [tuple(same), *chunks] if same else chunks

    def prepare(self, model: nn.Module, blueprint: Blueprint, data: Data) -> Fitting:
        """Trace the network, fold its norms and load the images.

        Raises:
            BadInput: too few images.
        """
        heldout = data.heldout.sample(self.heldout, self.seed)
        return Fitting(
            model=model,
            blueprint=blueprint,
            original=Original(model, blueprint.input),
            images=calibration_images(data, self.images, self.seed),
            heldout=heldout,
            heldout_images=heldout.first(len(heldout)),
        )

    def score(self, state: Fitting, entries: Sequence[ScoreKey | None]) -> list[Scores]:
        """Return accuracy, loss (nats), "logits" and "residual" of each entry."""
        same, by_start = _parted(entries)
        scores: dict[ScoreKey | None, Scores] = {}
        if same:
            logits = predict_logits(state.model, state.heldout)
            unchanged = _scores(logits, logits, state.heldout.labels, 0.0)
            scores.update(dict.fromkeys(same, unchanged))
        for group in by_start.values():
            scores.update(zip(group, self._fitted(state, group), strict=True))
        return [scores[entry] for entry in entries]

    def _fitted(self, state: Fitting, entries: Sequence[ScoreKey]) -> list[Scores]:
        """Return the scores of entries whose spans begin at one position."""
        found = [examine(state.blueprint, entry.span) for entry in entries]
        spans = [span for span in found if isinstance(span, MergedSpan)]
        convs = state.original.fit_spans(spans, state.images, self.ridge)
        plain, outputs = state.original.outputs(state.heldout_images, spans, convs)
        return [
            _scores(plain, output, state.heldout.labels, conv.residual)
            for output, conv in zip(outputs, convs, strict=True)
        ]


def _parted(
    entries: Sequence[ScoreKey | None],
) -> tuple[list[ScoreKey | None], dict[int, list[ScoreKey]]]:
    """Return the entries that change nothing, and the others by their first position."""
    same: list[ScoreKey | None] = []
    by_start: dict[int, list[ScoreKey]] = {}
    for entry in entries:
        if entry is None or entry.span.length == 1:
            same.append(entry)
        else:
            by_start.setdefault(entry.start, []).append(entry)
    return same, by_start


def calibration_images(data: Data, count: int, seed: int = 0) -> Tensor:
    """Draw `count` images of the training set, or all if there are fewer.

    They are prepared as the network takes them, (N, C, H, W), float32. Labels are not
    looked at.

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


def _scores(plain: Tensor, output: Tensor, labels: Tensor, residual: float) -> Scores:
    check_classes(output, int(labels.max()) + 1)
    ours, theirs = (F.log_softmax(x.double(), 1) for x in (output, plain))
    return {
        "accuracy": (output.argmax(1) == labels).double().mean().item(),
        "loss": F.nll_loss(ours, labels).item(),
        "logits": F.kl_div(ours, theirs, reduction="batchmean", log_target=True).item(),
        "residual": residual,
    }
