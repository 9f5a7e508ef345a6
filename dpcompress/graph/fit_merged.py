"""A plan's merged network without training: every span fitted to the original."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, fx, nn

from dpcompress.blueprint import Blueprint, MergedSpan, Plan, check_plan
from dpcompress.errors import BadInput
from dpcompress.files import write_text
from dpcompress.graph.build import build
from dpcompress.graph.nodes import op_nodes, value_nodes
from dpcompress.graph.partial import Parts
from dpcompress.graph.span_fit import RIDGE, Original, begin_fit, chunks, whole_kernel
from dpcompress.progress import Progress, silent

LEAST_IMAGES = 16


@dataclass(frozen=True)
class FittedSpan:
    """A span that was fitted. residual: how far it is from what the original gives
    there, root mean square over standard deviation, on the images it was fitted on."""

    start: int
    stop: int
    kernel: tuple[int, int]
    residual: float


@dataclass(frozen=True)
class FitReport:
    """What a fitted network has in place of a certificate: it approximates the original
    and is no exact merge of anything. Written as JSON."""

    plan: dict[str, Any]
    images: int
    ridge: float
    spans: list[FittedSpan]
    kind: Literal["fitted"] = "fitted"
    version: int = 1

    def write(self, path: str | Path) -> None:
        write_text(path, json.dumps(asdict(self), indent=1) + "\n")


def fit_merged(
    model: nn.Module,
    plan: Plan,
    images: Tensor,
    *,
    ridge: float = RIDGE,
    progress: Progress = silent,
) -> tuple[fx.GraphModule, FitReport]:
    """The merged network of `plan`, made without labels and without training.

    From front to back, the convolution of every merged span is fitted by least squares:
    from what the network so far really gives it, to what the original has at its end.
    Errors of earlier spans, on a skip that joins there too, are so made up for. Single
    layers stay as they are.

    Args:
        model: the trained original; not changed.
        images: (N, C, H, W), prepared as the network takes them; a few hundred.

    Returns:
        A network of the same modules and names as `merge` gives, in eval mode, float32,
        on the CPU; and how well each span could be fitted.

    Raises:
        IllegalMerge: as `linearize`.
        BadInput: too few images, or of another size than the plan's.
    """
    if len(images) < LEAST_IMAGES or tuple(images.shape[1:]) != plan.input:
        raise BadInput(
            f"{len(images)} images of {'x'.join(map(str, images.shape[1:]))} cannot be "
            "fitted on.",
            f"Give {LEAST_IMAGES} or more of the plan's input size.",
        )
    merged = build(model, plan)
    merged.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    fitter = _Fitter(Original(model, plan.input), merged, plan, images)
    spans = [s for s in check_plan(fitter.blueprint, plan) if s.span.length > 1]
    fitted = []
    progress(0, len(spans))
    for span in spans:
        residual = fitter.fit(span, ridge)
        fitted.append(FittedSpan(*span.span, span.conv.kernel, residual))
        progress(len(fitted), len(spans), f"layers {span.span[0] + 1}..{span.span[1]}")
    merged.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    report = FitReport(plan.model_dump(mode="json"), len(images), ridge, fitted)
    return merged, report


class _Fitter:
    """The original and the merged network side by side, on the same images."""

    def __init__(
        self, original: Original, merged: fx.GraphModule, plan: Plan, images: Tensor
    ) -> None:
        self.original, self.merged, self.images = original, merged, images
        self.blueprint: Blueprint = original.blueprint
        self.plan, self.parts = plan, Parts(merged)
        self.exits, self.entries = op_nodes(merged), value_nodes(merged, self.blueprint)

    def fit(self, span: MergedSpan, ridge: float) -> float:
        """Put the best convolution into `span`'s place; its residual."""
        conv = self.merged.get_submodule(str(self.exits[span.exit].target))
        assert isinstance(conv, nn.Conv2d)
        end, goal = self._ends(span)
        original, wanted = self.original, self.original.nodes[goal]
        entry, exit, sum_ = (
            self.entries[span.entry],
            self.exits[span.exit],
            self.exits[end],
        )
        fit = begin_fit(span.conv, len(self.images))
        for chunk in chunks(self.images, self.blueprint):
            target = original.parts.run({original.parts.input: chunk}, {wanted})[wanted]
            have = self.parts.run({self.parts.input: chunk}, {entry, exit, sum_})
            joined = have[sum_] - have[exit]  # what skips add, errors and all
            fit.add(have[entry], [target - joined])
        found = whole_kernel(span.conv, fit.solve(ridge)[0])
        with torch.no_grad():
            conv.weight.copy_(found.weight)
            conv.bias.copy_(found.bias)  # type: ignore[union-attr]
        return found.residual

    def _ends(self, span: MergedSpan) -> tuple[int, int]:
        """The op after `span`'s conv and the sums that it goes into, and the op of the
        original that it should equal: the same, or, where the plan removes the closing
        activation, what that activation gives."""
        end = span.exit
        for index in span.tail:
            if self.blueprint.ops[index].kind not in ("add", "identity"):
                break
            end = index
        act = self.blueprint.layers[span.span.stop - 1].act
        removed = act is not None and span.span.stop not in self.plan.activations
        return end, act if removed and act is not None else end
