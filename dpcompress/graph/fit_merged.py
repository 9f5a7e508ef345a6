"""A plan's merged network without training: every span fitted to the original."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, fx, nn

from dpcompress.blueprint import Blueprint, MergedSpan, Pair, Plan, check_plan
from dpcompress.blueprint.data import Frozen
from dpcompress.errors import BadInput
from dpcompress.graph.build import build
from dpcompress.graph.nodes import op_nodes, value_nodes
from dpcompress.graph.original import Original
from dpcompress.graph.partial import Parts, chunks
from dpcompress.graph.span_fit import RIDGE, begin_fit, whole_kernel
from dpcompress.progress import Progress, silent

LEAST_IMAGES = 16


class FittedSpan(Frozen):
    """The fit of one span, layers start+1 .. stop.

    kernel: of the fitted convolution.
    residual: distance from the original's tensor at the span's end, root mean square over
        standard deviation, on the images of the fit.
    """

    start: int
    stop: int
    kernel: Pair
    residual: float


class FitReport(Frozen):
    """The report on a fitted network, which only approximates the original and so has no
    certificate.

    images: how many the fit was made on.
    kind: sets a report apart from a `Certificate`.
    """

    plan: Plan
    images: int
    ridge: float
    spans: tuple[FittedSpan, ...]
    kind: Literal["fitted"] = "fitted"
    version: Literal[1] = 1


def fit_merged(
    model: nn.Module,
    plan: Plan,
    images: Tensor,
    *,
    ridge: float = RIDGE,
    progress: Progress = silent,
) -> tuple[fx.GraphModule, FitReport]:
    """Make the merged network of `plan` without labels and without training.

    From front to back, the convolution of every merged span is fitted by least squares.
    Its input is the tensor that the network so far gives there, its target the original's
    tensor at the span's end. So it makes up for errors of earlier spans, also of those
    that reach the target by a skip. Single layers stay as they are.

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
        residual = fitter.fit_span(span, ridge)
        start, stop = span.span
        one = FittedSpan(
            start=start, stop=stop, kernel=span.conv.kernel, residual=residual
        )
        fitted.append(one)
        progress(len(fitted), len(spans), f"layers {start + 1}..{stop}")
    merged.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    report = FitReport(plan=plan, images=len(images), ridge=ridge, spans=tuple(fitted))
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

    def fit_span(self, span: MergedSpan, ridge: float) -> float:
        """Fit the convolution of `span`, in place, and return the residual."""
        conv = self.merged.get_submodule(str(self.exits[span.exit].target))
        assert isinstance(conv, nn.Conv2d)
        end, goal = self._ends(span)
        original, wanted = self.original, self.original.nodes[goal]
        entry, exit = self.entries[span.entry], self.exits[span.exit]
        sum_ = self.exits[end]
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
        """Find the op to compare and the op of the original that it should equal.

        The first is the last of the sums that `span`'s conv goes into, or the conv. The
        second is the same op, or the closing activation where the plan removes it.
        """
        end = span.exit
        for index in span.tail:
            if self.blueprint.ops[index].kind not in ("add", "identity"):
                break
            end = index
        act = self.blueprint.layers[span.span.stop - 1].act
        removed = act is not None and span.span.stop not in self.plan.activations
        return end, act if removed and act is not None else end
