"""Spans of the original as fitted convolutions, and what they do to its output."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dpcompress.algebra import ConvFit, FittedConv
from dpcompress.blueprint import Blueprint, ConvSpec, MergedSpan
from dpcompress.graph.capture import capture
from dpcompress.graph.nodes import op_nodes
from dpcompress.graph.partial import Parts, fold_norms

RIDGE = 1e-2
"""Strong: no worse at once, and kernels stay so small that training can begin from them
(experiments/cifar10)."""
UNKNOWNS = 5200
"""Weights of one output channel that are fitted at most: a Gram matrix of 216 MB."""
SAMPLES_PER_UNKNOWN, LEAST_SAMPLES = 8, 20_000
_CHUNK_VALUES = 1 << 23
"""Values of a network's largest tensor that are computed at a time: 32 MB."""


class Original:
    """A trained network in eval mode, any span of which can be fitted and replaced.

    Raises:
        UntraceableModel, BadInput: as `trace`.
    """

    def __init__(self, model: nn.Module, input_shape: tuple[int, int, int]) -> None:
        captured = capture(model, input_shape)
        self.blueprint, network = captured.blueprint, captured.network.float()
        fold_norms(network, self.blueprint)
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.parts, self.nodes = Parts(network), op_nodes(network)

    def fit(
        self, spans: Sequence[MergedSpan], images: Tensor, ridge: float = RIDGE
    ) -> list[FittedConv]:
        """The convolutions that best give each span's output from its input, both as
        they are in this network. `spans` begin at one tensor: what they can share is
        shared, but what is found for one does not depend on the others.

        images: (N, C, H, W), as the network takes them.
        """
        entry = self.nodes[spans[0].entry]
        alike: dict[str, list[MergedSpan]] = {}
        for span in spans:
            shape = span.conv.model_copy(update={"out_channels": 1})
            alike.setdefault(shape.model_dump_json(), []).append(span)
        fits = [(begin_fit(like[0].conv, len(images)), like) for like in alike.values()]
        wanted = {entry, *(self.nodes[span.exit] for span in spans)}
        for chunk in chunks(images, self.blueprint):
            values = self.parts.run({self.parts.input: chunk}, wanted)
            for fit, like in fits:
                fit.add(values[entry], [values[self.nodes[span.exit]] for span in like])
        found = {
            span.span: whole_kernel(span.conv, conv)
            for fit, like in fits
            for span, conv in zip(like, fit.solve(ridge), strict=True)
        }
        return [found[span.span] for span in spans]

    def outputs(
        self, images: Tensor, spans: Sequence[MergedSpan], convs: Sequence[FittedConv]
    ) -> tuple[Tensor, list[Tensor]]:
        """What the network says of `images`, and what it says with each of `spans` in
        turn replaced by its convolution. They begin at one tensor."""
        parts, entry = self.parts, self.nodes[spans[0].entry]
        exits = [self.nodes[span.exit] for span in spans]
        besides = [parts.frontier(exit, entry) for exit in exits]
        shared = {entry, parts.output}.union(*besides)
        plain: list[Tensor] = []
        replaced: list[list[Tensor]] = [[] for _ in spans]
        for chunk in chunks(images, self.blueprint):
            values = parts.run({parts.input: chunk}, shared)
            plain.append(values[parts.output])
            for n, (span, conv) in enumerate(zip(spans, convs, strict=True)):
                given = {node: values[node] for node in besides[n]}
                given[exits[n]] = convolve(span.conv, conv, values[entry])
                replaced[n].append(parts.run(given, {parts.output})[parts.output])
        return torch.cat(plain), [torch.cat(outputs) for outputs in replaced]


def chunks(images: Tensor, blueprint: Blueprint) -> Iterator[Tensor]:
    """`images`, so few at a time that memory does not depend on how many there are."""
    largest = max(prod(op.shape) for op in blueprint.ops)
    yield from images.split(max(1, _CHUNK_VALUES // largest))


def begin_fit(conv: ConvSpec, images: int) -> ConvFit:
    """Normal equations for a merged convolution; of a very large one only the middle
    taps are fitted (at most UNKNOWNS weights per output channel)."""
    cut = _cut(conv)
    (top, bottom), (left, right) = (
        (front - c * step, back - c * step)
        for (front, back), c, step in zip(conv.padding, cut, conv.dilation, strict=True)
    )
    kernel = (conv.kernel[0] - 2 * cut[0], conv.kernel[1] - 2 * cut[1])
    unknowns = conv.in_channels // conv.groups * prod(kernel)
    return ConvFit(
        kernel=kernel,
        stride=conv.stride,
        padding=((top, bottom), (left, right)),
        dilation=conv.dilation,
        groups=conv.groups,
        samples=max(SAMPLES_PER_UNKNOWN * unknowns, LEAST_SAMPLES),
        expected=images,
    )


def whole_kernel(conv: ConvSpec, found: FittedConv) -> FittedConv:
    """What was fitted, with zeros for the taps that were not."""
    rows, columns = _cut(conv)
    weight = F.pad(found.weight, (columns, columns, rows, rows))
    return FittedConv(weight, found.bias, found.residual)


def _cut(conv: ConvSpec) -> tuple[int, int]:
    """Taps to leave out at each end of each dimension, the longer dimension first."""
    size, cut = list(conv.kernel), [0, 0]
    while conv.in_channels // conv.groups * size[0] * size[1] > UNKNOWNS:
        longer = 0 if size[0] >= size[1] else 1
        if size[longer] < 3:
            break
        size[longer] -= 2
        cut[longer] += 1
    return cut[0], cut[1]


@torch.inference_mode()
def convolve(spec: ConvSpec, conv: FittedConv, value: Tensor) -> Tensor:
    (top, bottom), (left, right) = spec.padding
    return F.conv2d(
        F.pad(value, (left, right, top, bottom)),
        conv.weight.to(value.dtype),
        conv.bias.to(value.dtype),
        spec.stride,
        0,
        spec.dilation,
        spec.groups,
    )
