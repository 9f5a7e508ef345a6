"""The proof that a merged network computes what its linearized form computes."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from typing import Any, Literal

import torch
from pydantic import computed_field, model_validator
from torch import Tensor, fx, nn
from torch.nn import functional as F

from dpcompress.blueprint import Blueprint, MergedSpan, Pair, Plan, check_plan
from dpcompress.blueprint.data import Frozen
from dpcompress.errors import VerificationFailed
from dpcompress.graph.nodes import op_nodes, planned_of, value_nodes

FLOAT64_LIMIT = 1e-10
FLOAT32_LIMIT = 1e-4
ROUNDING_FACTOR = 4
_RANDOM_IMAGES = 2


class Difference(Frozen):
    """The largest |Δ| of a comparison, relative to the largest |value| of the reference.

    float64: proves that the merge is exact.
    float32: depends on the network as well as on the merge.
    rounding: how far the linearized network itself is off when computed in float32.
    border, inside: as float64, over the pixels that see padding, and over the others;
        None where there are no such pixels.
    """

    float64: float
    float32: float
    rounding: float
    border: float | None = None
    inside: float | None = None

    @property
    def holds(self) -> bool:
        """Whether the difference is no more than rounding."""
        allowed = max(FLOAT32_LIMIT, ROUNDING_FACTOR * self.rounding)
        return self.float64 <= FLOAT64_LIMIT and self.float32 <= allowed


class SpanProof(Frozen):
    """The proof for one merged span, layers start+1 .. stop.

    kernel: of the merged convolution.
    random, real: differences on random inputs and on given images.
    range_growth: max|w| / rms(w) of the merged kernel over the largest of its parts': how
        much more range a low-precision format must cover.
    """

    start: int
    stop: int
    kernel: Pair
    random: Difference
    real: Difference | None
    range_growth: float


class Certificate(Frozen):
    """The differences between the linearized and the merged network of a plan.

    network_random, network_real: of the outputs, on random inputs and on given images.
    spans: those that merge several convolutions.
    fp16_linearized, fp16_merged: relative difference that casting all weights and
        activations to fp16 makes to each network's output; "overflow" where values leave
        fp16's range, None where this machine cannot compute in fp16.
    kind: sets a certificate apart from a `FitReport`.
    """

    plan: Plan
    network_random: Difference
    network_real: Difference | None = None
    spans: tuple[SpanProof, ...] = ()
    fp16_linearized: float | Literal["overflow"] | None = None
    fp16_merged: float | Literal["overflow"] | None = None
    kind: Literal["exact"] = "exact"
    version: Literal[1] = 1

    @model_validator(mode="before")
    @classmethod
    def _judge_anew(cls, data: Any) -> Any:
        """Leave out the verdict of a file: it follows from the differences."""
        if isinstance(data, dict):
            data = {name: value for name, value in data.items() if name != "holds"}
        return data

    @computed_field  # type: ignore[prop-decorator]
    @property
    def holds(self) -> bool:
        """Whether all differences are no more than rounding."""
        return all(difference.holds for _, difference in self._compared())

    def _compared(self) -> Iterator[tuple[str, Difference]]:
        """Yield places and the differences there: span by span, then the output."""
        places = [(f"span {s.start} to {s.stop}", s.random, s.real) for s in self.spans]
        places.append(("the output", self.network_random, self.network_real))
        for where, random, real in places:
            yield where, random
            if real is not None:
                yield where, real

    def require(self) -> None:
        """Raise VerificationFailed, naming the first span that fails, unless all hold."""
        if self.holds:
            return
        where, worst = next((w, d) for w, d in self._compared() if not d.holds)
        if worst.float64 <= FLOAT64_LIMIT:
            raise VerificationFailed(
                f"The merge is exact, but in float32 {where} changes by "
                f"{worst.float32:.1e} of its largest value, and by {worst.rounding:.1e} "
                f"from rounding alone ({FLOAT32_LIMIT:g} or {ROUNDING_FACTOR} times that "
                "allowed).",
                "Nothing was written; values that grow from layer to layer do this: "
                "train the linearized network, so that its norms have statistics of "
                "their own.",
            )
        raise VerificationFailed(
            f"The merged network is not the linearized one: {where} differs by "
            f"{worst.float64:.1e} in float64 and {worst.float32:.1e} in float32, of the "
            f"largest value ({FLOAT64_LIMIT:g} and {FLOAT32_LIMIT:g} allowed).",
            "Nothing was written; if the weights are finite, this is a bug: report it.",
        )


def certify(
    linearized: fx.GraphModule, merged: fx.GraphModule, images: Tensor | None = None
) -> Certificate:
    """Compare copies of two networks of one plan, in eval mode: spans and the whole in
    float64 and float32, and each whole network in fp16 with itself in float32.

    Each span is compared on the inputs that the linearized network gives it.

    Args:
        merged: what `merge_unchecked` returned, in float64.
        images: (N, C, H, W), to compare on besides random ones.
    """
    blueprint, plan = planned_of(linearized)
    spans = check_plan(blueprint, plan)
    pairs = {
        dtype: (
            copy.deepcopy(linearized).cpu().to(dtype).eval(),
            copy.deepcopy(merged).cpu().to(dtype).eval(),
        )
        for dtype in (torch.float64, torch.float32)
    }
    generator = torch.Generator().manual_seed(0)
    random = torch.randn(_RANDOM_IMAGES, *blueprint.input, generator=generator)
    on_random = _compare(pairs, blueprint, spans, random)
    on_real = None if images is None else _compare(pairs, blueprint, spans, images.cpu())
    fp16 = [_fp16_difference(net, random) for net in pairs[torch.float32]]
    return Certificate(
        plan=plan,
        network_random=on_random[0],
        network_real=on_real[0] if on_real else None,
        spans=tuple(
            SpanProof(
                start=span.span.start,
                stop=span.span.stop,
                kernel=span.conv.kernel,
                random=on_random[1][n],
                real=on_real[1][n] if on_real else None,
                range_growth=_range_growth(pairs[torch.float32], blueprint, span),
            )
            for n, span in enumerate(spans)
            if sum(blueprint.ops[i].kind == "conv" for i in span.region) > 1
        ),
        fp16_linearized=fp16[0],
        fp16_merged=fp16[1],
    )


_Pairs = dict[torch.dtype, tuple[fx.GraphModule, fx.GraphModule]]


def _compare(
    pairs: _Pairs, blueprint: Blueprint, spans: list[MergedSpan], images: Tensor
) -> tuple[Difference, list[Difference]]:
    (linear64, merged64), (linear32, merged32) = pairs.values()
    output64, values64 = _run(linear64, blueprint, spans, images.double())
    output32, values32 = _run(linear32, blueprint, spans, images.float())
    with torch.no_grad():
        whole = Difference(
            float64=_relative(merged64(images.double()), output64),
            float32=_relative(merged32(images.float()), output32),
            rounding=_relative(output32.double(), output64),
        )
    parts = []
    for span, (value64, exit64), (value32, exit32) in zip(
        spans, values64, values32, strict=True
    ):
        delta = (_replay(merged64, span, value64) - exit64).abs().amax((0, 1))
        scale = float(exit64.abs().max().clamp_min(1e-30))
        border, inside = (
            float(delta[pixels].max()) / scale if pixels.any() else None
            for pixels in _border(span, delta)
        )
        exact32 = _replay(merged64, span, value32.double())
        parts.append(
            Difference(
                float64=float(delta.max()) / scale,
                float32=_relative(_replay(merged32, span, value32), exit32),
                rounding=_relative(exact32, exit32.double()),
                border=border,
                inside=inside,
            )
        )
    return whole, parts


def _run(
    network: fx.GraphModule,
    blueprint: Blueprint,
    spans: list[MergedSpan],
    images: Tensor,
) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
    """Run the network; return its output and each span's input and output."""
    exits, entries = op_nodes(network), value_nodes(network, blueprint)
    wanted = {entries[s.entry] for s in spans} | {exits[s.exit] for s in spans}
    kept: dict[fx.Node, Tensor] = {}

    class Recorder(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            value = super().run_node(n)
            if n in wanted:
                kept[n] = value
            return value

    with torch.no_grad():
        output = Recorder(network).run(images)
    return output, [(kept[entries[s.entry]], kept[exits[s.exit]]) for s in spans]


def _replay(merged: fx.GraphModule, span: MergedSpan, value: Tensor) -> Tensor:
    """Run the merged conv of `span` on the linearized span's input."""
    conv = merged.get_submodule(str(op_nodes(merged)[span.exit].target))
    assert isinstance(conv, nn.Conv2d)
    (top, bottom), (left, right) = span.conv.padding
    with torch.no_grad():
        if conv.padding == (0, 0):
            value = F.pad(value, (left, right, top, bottom))
        return conv(value)


def _border(span: MergedSpan, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """The masks of the output pixels that see padding and of those that do not."""
    inside = torch.zeros_like(pixels, dtype=torch.bool)
    rows, columns = (
        slice(math.ceil(front / s), max(size - math.ceil(back / s), 0))
        for (front, back), s, size in zip(
            span.conv.padding, span.conv.stride, pixels.shape, strict=True
        )
    )
    inside[rows, columns] = True
    return ~inside, inside


def _relative(actual: Tensor, expected: Tensor) -> float:
    """The largest |Δ| over the largest |value|; infinite if NaN is anywhere."""
    distance = float((actual - expected).abs().max())
    scale = float(expected.abs().max().clamp_min(1e-30))
    ratio = distance / scale
    return float("inf") if math.isnan(ratio) else ratio


def _range_growth(
    pair: tuple[fx.GraphModule, fx.GraphModule], blueprint: Blueprint, span: MergedSpan
) -> float:
    linearized, merged = pair

    def peak(network: fx.GraphModule, path: str) -> float:
        weight = network.get_submodule(path).weight
        assert isinstance(weight, Tensor)
        weight = weight.detach()
        return float(weight.abs().max() / weight.square().mean().sqrt().clamp_min(1e-30))

    parts = [
        peak(linearized, blueprint.ops[i].name)
        for i in span.region
        if blueprint.ops[i].kind == "conv"
    ]
    path = str(op_nodes(merged)[span.exit].target)
    return peak(merged, path) / max(parts)


def _fp16_difference(
    network: fx.GraphModule, images: Tensor
) -> float | Literal["overflow"] | None:
    try:
        with torch.no_grad():
            half = copy.deepcopy(network).half()(images[:1].half()).float()
            found = _relative(half, network(images[:1]))
            return found if math.isfinite(found) else "overflow"
    except RuntimeError:  # an op without an fp16 kernel on this machine
        return None
