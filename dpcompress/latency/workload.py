"""What must be timed for a latency table: graphs by name, independent of any engine."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from dpcompress.blueprint import Blueprint, ConvSpec, Span, candidates
from dpcompress.files import digest
from dpcompress.latency.frames import copies, frame_graph, framed_graph, frames_of, label
from dpcompress.onnxio.precision import in_precision
from dpcompress.onnxio.write import plain_graph
from dpcompress.runner import Engine
from dpcompress.ways.program import (
    Program,
    Source,
    Step,
    activation_is_free,
    span_op,
)

METHOD = "framed-4"
"""Names the way of timing an op; part of the key of everything measured."""


def method(most_copies: int) -> str:
    """`METHOD`, with the limit where an engine has one of its own."""
    own = most_copies != Engine.most_copies
    return f"{METHOD}, most copies {most_copies}" if own else METHOD


SpanOps = dict[tuple[Span, bool | None], Program]


@dataclass(frozen=True)
class Job:
    """`graph` makes the ONNX bytes; `bytes`: rough memory of the session; `kind`: as of a
    `Subject`."""

    graph: Callable[[], bytes]
    bytes: int = 0
    kind: str = ""

    def in_precision(self, precision: str) -> Job:
        return replace(self, graph=lambda: in_precision(self.graph(), precision))


def span_ops(blueprint: Blueprint) -> SpanOps:
    """(span, act_stop) → its op; act_stop None where one op stands for both."""
    found: SpanOps = {}
    for span, merged in candidates(blueprint).items():
        bare, closed = (span_op(blueprint, merged, flag) for flag in (False, True))
        if bare == closed or activation_is_free(closed):
            found[span, None] = closed
        else:
            found[span, False], found[span, True] = bare, closed
    return found


def jobs(
    ops: SpanOps,
    original: bytes,
    batch: int,
    *,
    most_copies: int,
    precision: str = "fp32",
) -> dict[str, Job]:
    """Subject → job: the original network, every unique op in its frame, the frames;
    their graphs are written in the numbers of `precision`."""
    found = {network_name(original): Job(lambda: original)}
    for op in {op.signature: op for op in ops.values()}.values():
        count = copies(op, batch, most_copies)
        framed = partial(framed_graph, op, batch, count)
        found[op.signature] = Job(framed, count * _bytes(op, batch), _kind(op))
        for sources, readers in frames_of(op):
            graph = partial(frame_graph, sources, readers, batch)
            size = 8 * batch * sum(math.prod(source.shape) for source in sources)
            found[frame_name(sources, readers)] = Job(graph, size)
    return {subject: job.in_precision(precision) for subject, job in found.items()}


def is_op(subject: str) -> bool:
    """Whether a subject is an op: without any other one there is no table."""
    return " > " in subject


def network_name(onnx: bytes) -> str:
    return f"network {digest(onnx)}"


def frame_name(sources: Sequence[Source], readers: int) -> str:
    return f"frame {label(sources)} to {readers}"


def anchor(precision: str = "fp32") -> Job:
    """A conv that keeps all cores busy for some tenths of a millisecond."""
    return Job(_anchor_graph).in_precision(precision)


def _anchor_graph() -> bytes:
    shape = (64, 28, 28)
    conv = ConvSpec(
        in_channels=64, out_channels=64, kernel=(3, 3), padding=((1, 1), (1, 1))
    )
    return plain_graph(
        Program((Source(shape),), (Step("conv", (0,), shape, conv=conv),)), 1
    )


def _kind(op: Program) -> str:
    """Depthwise convolutions wait for memory more than they compute."""
    depthwise = (s.conv and 1 < s.conv.groups == s.conv.in_channels for s in op.steps)
    return "depthwise" if any(depthwise) else ""


def _bytes(op: Program, batch: int) -> int:
    shapes = [*(s.shape for s in op.sources), *(s.shape for s in op.steps)]
    weights = sum(step.conv.weights for step in op.steps if step.conv)
    return 4 * (batch * sum(map(math.prod, shapes)) + 2 * weights)
