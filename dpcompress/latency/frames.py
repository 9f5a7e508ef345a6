"""Timing an op as if it stood in its network, not alone.

Alone, an op pays for the call, for converting its input to the engine's own memory
layout and back, and reads an input that nothing has just written. So each op is timed
inside a frame: a cheap 1×1 conv that makes each of its inputs and a cheap 1×1 conv that
reads its output. What the frame itself costs is timed once per tensor shape, as a
producer directly followed by its consumer, and subtracted. Along a path of spans
S = {0, …, L} every inner position's frame is added by one op and by the next one, and
subtracted as the very graph that was timed: errors in telling producer from consumer
cancel in every sum.
"""

from __future__ import annotations

from dpcompress.blueprint import ConvSpec
from dpcompress.latency.onnx_graphs import Graph, add_op
from dpcompress.latency.ops import Shape, Source, TimedOp

PRODUCER_CHANNELS = 4
CONSUMER_CHANNELS = 16


def framed_graph(op: TimedOp, batch: int) -> bytes:
    """producers → op → consumer."""
    graph = Graph(op.signature, batch)
    output = add_op(graph, op, [_produce(graph, s) for s in op.sources])
    return graph.finish(dict([_consume(graph, output, op.shape)]))


def frame_graph(source: Source, consumers: int, batch: int) -> bytes:
    """producer → consumer, or → two consumers of the same tensor."""
    graph = Graph(f"frame {source.label} {consumers}", batch)
    tensor = _produce(graph, source)
    outputs = [_consume(graph, tensor, source.shape) for _ in range(consumers)]
    return graph.finish(dict(outputs))


def empty_graph(batch: int) -> bytes:
    """A graph that computes next to nothing: the cost of a call."""
    graph = Graph("empty", batch)
    shape = (1, 1, 1)
    return graph.finish({graph.add("Relu", [graph.input(shape)]): shape})


def _produce(graph: Graph, source: Source) -> str:
    channels, height, width = source.shape
    if source.raw:
        return graph.input(source.shape)
    x = graph.input((PRODUCER_CHANNELS, height, width))
    return graph.conv(x, _pointwise(PRODUCER_CHANNELS, channels))


def _consume(graph: Graph, tensor: str, shape: Shape) -> tuple[str, Shape]:
    output = graph.conv(tensor, _pointwise(shape[0], CONSUMER_CHANNELS))
    return output, (CONSUMER_CHANNELS, *shape[1:])


def _pointwise(channels: int, out: int) -> ConvSpec:
    return ConvSpec(in_channels=channels, out_channels=out, kernel=(1, 1))


class FrameCosts:
    """What frames cost, from measured times (ms).

    call_ms: `empty_graph`. once_ms, twice_ms: label of a Source → `frame_graph` with one
    and with two consumers.
    """

    def __init__(
        self, call_ms: float, once_ms: dict[str, float], twice_ms: dict[str, float]
    ) -> None:
        self.call_ms, self.once_ms, self.twice_ms = call_ms, once_ms, twice_ms

    def consumer_ms(self, shape: Shape) -> float:
        label = Source(shape).label
        return self.twice_ms[label] - self.once_ms[label]

    def producer_ms(self, source: Source) -> float:
        if source.raw:
            return 0.0
        once_ms = self.once_ms[source.label]
        return once_ms - self.call_ms - self.consumer_ms(source.shape)

    def of(self, op: TimedOp) -> float:
        """What to take off the time of `framed_graph(op)`."""
        producers = (self.producer_ms(source) for source in op.sources)
        return self.call_ms + sum(producers) + self.consumer_ms(op.shape)


def frame_sources(op: TimedOp) -> tuple[Source, ...]:
    """The tensors whose frames must be timed for `FrameCosts.of(op)`."""
    inner = (source for source in op.sources if not source.raw)
    return (*inner, Source(op.shape))
