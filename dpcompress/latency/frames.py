"""Timing an op as if it stood in its network, not alone.

Alone, an op pays for the call, for waking the engine's threads, for converting its input
to the engine's own memory layout and back, and reads an input that nothing has just
written. So each op is timed inside a frame: a cheap 1×1 conv makes each of its inputs,
and a pooling that picks a single pixel reads its output in the engine's layout. What the
frame costs by itself is timed once per set of tensors and subtracted.

That leaves a small difference of two noisy times where an op costs less than its frame.
Such an op stands in its frame several times over, side by side with different weights,
so that the frame weighs less: see `copies`. An engine that may fuse such copies says so
(`Engine.most_copies`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from dpcompress.blueprint import ConvSpec
from dpcompress.onnxio.write import Graph, add_op
from dpcompress.ways.program import Program, Shape, Source

PRODUCER_CHANNELS = 4
READERS = 9
"""Consumers of one tensor at once: the time of a single one is lost in the noise."""

_CALL_US = 80.0
_MACS_PER_US, _BYTES_PER_US = 60_000.0, 20_000.0
"""A rough CPU of two cores. Only the number of copies depends on it."""


def copies(op: Program, batch: int, most: int) -> int:
    """How often the op stands in its frame: until it is four times the frame's work, by
    shapes alone, at most `most` times. Once if a step without weights reads nothing but
    sources, because an engine may notice that its copies compute the same."""
    if any(s.kind != "conv" and max(s.inputs) < len(op.sources) for s in op.steps):
        return 1
    made = sum(math.prod(s.shape) for s in op.sources if not s.raw)
    frame_us = _CALL_US + batch * made * (
        PRODUCER_CHANNELS / _MACS_PER_US + 4 / _BYTES_PER_US
    )
    convs = [(step.conv, step.shape) for step in op.steps if step.conv]
    weights = sum(conv.weights for conv, _ in convs)
    macs = sum(conv.weights * math.prod(shape[1:]) for conv, shape in convs)
    moved = math.prod(op.shape) + sum(math.prod(s.shape) for s in op.sources)
    op_us = batch * (macs / _MACS_PER_US + 4 * moved / _BYTES_PER_US)
    op_us += 4 * weights / _BYTES_PER_US
    return min(max(math.ceil(4 * frame_us / op_us), 1), most)


def framed_graph(op: Program, batch: int, count: int) -> bytes:
    """producers → `count` copies of the op → a consumer each."""
    graph = Graph(op.signature, batch)
    tensors = [_produce(graph, source) for source in op.sources]
    made = [add_op(graph, op, tensors) for _ in range(count)]
    return graph.finish(dict(_consume(graph, tensor, op.shape) for tensor in made))


def frame_graph(sources: Sequence[Source], readers: int, batch: int) -> bytes:
    """producers → `readers` consumers each."""
    graph = Graph(f"frame {label(sources)} {readers}", batch)
    made = [(_produce(graph, source), source.shape) for source in sources]
    return graph.finish(
        dict(_consume(graph, *tensor) for tensor in made for _ in range(readers))
    )


def label(sources: Sequence[Source]) -> str:
    return ",".join(source.label for source in sources)


def _produce(graph: Graph, source: Source) -> str:
    channels, height, width = source.shape
    if source.raw:
        return graph.input(source.shape)
    x = graph.input((PRODUCER_CHANNELS, height, width))
    conv = ConvSpec(in_channels=PRODUCER_CHANNELS, out_channels=channels, kernel=(1, 1))
    return graph.conv(x, conv)


def _consume(graph: Graph, tensor: str, shape: Shape) -> tuple[str, Shape]:
    """Reads one pixel. (A conv with a stride would do as well, but engines move strides
    to the layer before.)"""
    output = graph.add("MaxPool", [tensor], kernel_shape=(1, 1), strides=shape[1:])
    return output, (shape[0], 1, 1)


class FrameCosts:
    """What frames cost, from measured times (ms).

    once_ms: label of an op's sources → `frame_graph` with one reader each.
    many_ms: label of a single tensor → `frame_graph` with `READERS`.
    """

    def __init__(
        self, once_ms: Mapping[str, float], many_ms: Mapping[str, float]
    ) -> None:
        self.once_ms, self.many_ms = once_ms, many_ms

    def consumer_ms(self, source: Source) -> float:
        more_ms = self.many_ms[source.label] - self.once_ms[source.label]
        return more_ms / (READERS - 1)

    def of(self, op: Program, count: int) -> float:
        """What to take off the time of a `framed_graph` with `count` copies."""
        unread = sum(self.consumer_ms(source) for source in op.sources)
        read = count * self.consumer_ms(Source(op.shape))
        return self.once_ms[label(op.sources)] - unread + read


def frames_of(op: Program) -> list[tuple[tuple[Source, ...], int]]:
    """Sources and readers of the frames that `FrameCosts.of(op, …)` needs."""
    tensors = (*op.sources, Source(op.shape))
    return [(op.sources, 1)] + [((t,), n) for t in tensors for n in (1, READERS)]
