"""The trained original, any span of which can be fitted and replaced."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dpcompress.algebra import FittedConv
from dpcompress.blueprint import ConvSpec, MergedSpan
from dpcompress.graph.capture import capture
from dpcompress.graph.nodes import op_nodes
from dpcompress.graph.partial import Parts, chunks, fold_norms
from dpcompress.graph.span_fit import RIDGE, begin_fit, whole_kernel


class Original:
    """The original network in eval mode, norms folded.

    Raises:
        UntraceableModel, BadInput: as `trace`.
    """

    def __init__(self, model: nn.Module, input_shape: tuple[int, int, int]) -> None:
        captured = capture(model, input_shape)
        self.blueprint, network = captured.blueprint, captured.network.float()
        fold_norms(network, self.blueprint)
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.parts, self.nodes = Parts(network), op_nodes(network)

    def fit_spans(
        self, spans: Sequence[MergedSpan], images: Tensor, ridge: float = RIDGE
    ) -> list[FittedConv]:
        """Fit each span's convolution to this network's tensors at its two ends.

        Args:
            spans: all of them begin at one tensor. Work that they can share is shared;
                the convolution of one does not depend on the others.
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
        """Run the network, and again with each span in turn replaced by its convolution.

        Args:
            images: (N, C, H, W), as the network takes them.
            spans: all of them begin at one tensor.
        """
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
                given[exits[n]] = _convolve(span.conv, conv, values[entry])
                replaced[n].append(parts.run(given, {parts.output})[parts.output])
        return torch.cat(plain), [torch.cat(outputs) for outputs in replaced]


@torch.inference_mode()
def _convolve(spec: ConvSpec, conv: FittedConv, value: Tensor) -> Tensor:
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
