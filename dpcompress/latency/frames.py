"""Timing a program as if it stood in its network, not alone.

Alone, a program pays for the call, for waking the engine's threads and for converting its
input to the engine's own memory layout and back, and it reads an input that nothing has
just written. So each program is timed inside a frame: a cheap 1×1 conv makes each of its
inputs, and a pooling that picks a single pixel reads its output in the engine's layout.
What the frame costs by itself is timed once per set of tensors and subtracted.

Where a program costs less than its frame, the difference of two noisy times says little.
Such a program stands in its frame several times over, side by side with different
weights, so that the frame weighs less: see `copies`. An engine that may fuse such copies
says so (`Engine.most_copies`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dpcompress.blueprint import ConvSpec
from dpcompress.onnxio.write import Graph, add_program
from dpcompress.runner import Engine
from dpcompress.ways.program import Program, Shape, Source

METHOD = "framed-4"
"""The name of this way of timing, part of the key of everything measured."""

PRODUCER_CHANNELS = 4

# Consumers of one tensor at once: the time of a single one is lost in the noise.
READERS = 9

# A rough CPU of two cores. Only the number of copies depends on it.
_CALL_US = 80.0
_MACS_PER_US = 60_000.0
_BYTES_PER_US = 20_000.0


def method(most_copies: int) -> str:
    """Name the way of timing: `METHOD`, and an engine's own limit of copies."""
    own = most_copies != Engine.most_copies
    return f"{METHOD}, most copies {most_copies}" if own else METHOD


@dataclass(frozen=True)
class Frame:
    """The frame alone, timed to be subtracted: producers, `readers` consumers of each."""

    sources: tuple[Source, ...]
    readers: int

    @property
    def name(self) -> str:
        return f"frame {_label(self.sources)} to {self.readers}"

    def graph(self, batch: int) -> bytes:
        """Write producers → `readers` consumers of each, in ONNX."""
        graph = Graph(f"frame {_label(self.sources)} {self.readers}", batch)
        made = [(_produce(graph, source), source.shape) for source in self.sources]
        return graph.finish(
            dict(_consume(graph, *tensor) for tensor in made for _ in range(self.readers))
        )


@dataclass(frozen=True)
class FramedProgram:
    """A program that stands in its frame `copies` times, side by side."""

    program: Program
    copies: int

    def graph(self, batch: int) -> bytes:
        """Write producers → the copies of the program → a consumer of each, in ONNX."""
        graph = Graph(self.program.signature, batch)
        tensors = [_produce(graph, source) for source in self.program.sources]
        made = [add_program(graph, self.program, tensors) for _ in range(self.copies)]
        shape = self.program.shape
        return graph.finish(dict(_consume(graph, tensor, shape) for tensor in made))

    @property
    def frames(self) -> tuple[Frame, ...]:
        """The frames whose times `own_ms` needs."""
        sources = self.program.sources
        tensors = (*sources, Source(self.program.shape))
        single = [Frame((t,), n) for t in tensors for n in (1, READERS)]
        return (Frame(sources, 1), *single)

    def own_ms(self, timed_ms: float, frames_ms: Mapping[Frame, float]) -> float:
        """Compute what one copy of the program takes by itself.

        Args:
            timed_ms: the time of `graph`.
            frames_ms: the times of `frames`.
        """

        def consumer_ms(source: Source) -> float:
            once, often = (Frame((source,), n) for n in (1, READERS))
            return (frames_ms[often] - frames_ms[once]) / (READERS - 1)

        unread_ms = sum(consumer_ms(source) for source in self.program.sources)
        read_ms = self.copies * consumer_ms(Source(self.program.shape))
        frame_ms = frames_ms[Frame(self.program.sources, 1)] - unread_ms + read_ms
        return (timed_ms - frame_ms) / self.copies


def copies(program: Program, batch: int, most: int) -> int:
    """Count the copies of a program in its frame: as many as take four times the frame's
    time, estimated from shapes alone, and at most `most`.

    One if a step other than a convolution reads sources alone, because an engine may
    notice that its copies compute the same.
    """
    sources = program.sources
    if any(s.kind != "conv" and max(s.inputs) < len(sources) for s in program.steps):
        return 1
    made = sum(math.prod(s.shape) for s in sources if not s.raw)
    frame_us = _CALL_US + batch * made * (
        PRODUCER_CHANNELS / _MACS_PER_US + 4 / _BYTES_PER_US
    )
    convs = [(step.conv, step.shape) for step in program.steps if step.conv]
    weights = sum(conv.weights for conv, _ in convs)
    macs = sum(conv.weights * math.prod(shape[1:]) for conv, shape in convs)
    moved = math.prod(program.shape) + sum(math.prod(s.shape) for s in sources)
    program_us = batch * (macs / _MACS_PER_US + 4 * moved / _BYTES_PER_US)
    program_us += 4 * weights / _BYTES_PER_US
    return min(max(math.ceil(4 * frame_us / program_us), 1), most)


def _label(sources: Sequence[Source]) -> str:
    return ",".join(source.label for source in sources)


def _produce(graph: Graph, source: Source) -> str:
    channels, height, width = source.shape
    if source.raw:
        return graph.input(source.shape)
    x = graph.input((PRODUCER_CHANNELS, height, width))
    conv = ConvSpec(in_channels=PRODUCER_CHANNELS, out_channels=channels, kernel=(1, 1))
    return graph.conv(x, conv)


def _consume(graph: Graph, tensor: str, shape: Shape) -> tuple[str, Shape]:
    """Read one pixel. (A conv with a stride would do as well, but engines move strides to
    the layer before.)"""
    output = graph.add("MaxPool", [tensor], kernel_shape=(1, 1), strides=shape[1:])
    return output, (shape[0], 1, 1)
