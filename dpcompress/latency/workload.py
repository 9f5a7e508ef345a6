"""What must be timed for a latency table, independent of any engine."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial

from dpcompress.blueprint import Blueprint, ConvSpec, candidates, split_activation
from dpcompress.files import digest
from dpcompress.latency.frames import Frame, FramedProgram, copies
from dpcompress.onnxio.write import plain_graph
from dpcompress.tables import MERGE, Key
from dpcompress.ways import merge
from dpcompress.ways.program import Program, Source, Step

_CLAMPS = frozenset({"relu", "relu6", "hardtanh", "leaky_relu"})


@dataclass(frozen=True)
class TimedGraph:
    """A graph to time.

    subject: its name in the store and in results.
    make: writes it as ONNX, in float32.
    bytes: rough memory of a session.
    kind: graphs of one kind slow down together ("depthwise"); "" for the rest.
    """

    subject: str
    make: Callable[[], bytes]
    bytes: int = 0
    kind: str = ""


@dataclass(frozen=True)
class Workload:
    """Everything that is timed for one table besides the original network.

    batch: images per inference.
    most_copies: `Engine.most_copies` of the engine.
    """

    blueprint: Blueprint
    batch: int
    most_copies: int

    @cached_property
    def programs(self) -> dict[Key, FramedProgram]:
        """What runs for each candidate span; one program for both values of `act_stop`
        where the engine spends no time on the activation, or none can be added."""
        found = {}
        for span, merged in candidates(self.blueprint).items():
            bare, closed = (
                merge.program(self.blueprint, merged, flag) for flag in (False, True)
            )
            if ends_with_free_activation(closed):
                bare = closed
            for act_stop, program in ((False, bare), (True, closed)):
                count = copies(program, self.batch, self.most_copies)
                found[Key(*span, MERGE, act_stop)] = FramedProgram(program, count)
        return found

    @cached_property
    def graphs(self) -> list[TimedGraph]:
        """A graph for every different program, each followed by its frames."""
        found: dict[str, TimedGraph] = {}
        for framed in self.programs.values():
            if framed.program.signature not in found:
                for graph in (self._graph(framed), *map(self._frame, framed.frames)):
                    found.setdefault(graph.subject, graph)
        return list(found.values())

    def _graph(self, framed: FramedProgram) -> TimedGraph:
        program = framed.program
        return TimedGraph(
            program.signature,
            partial(framed.graph, self.batch),
            framed.copies * _bytes(program, self.batch),
            _kind(program),
        )

    def _frame(self, frame: Frame) -> TimedGraph:
        values = sum(math.prod(source.shape) for source in frame.sources)
        make = partial(frame.graph, self.batch)
        return TimedGraph(frame.name, make, 8 * self.batch * values)


def network_graph(onnx: bytes, subject: str = "") -> TimedGraph:
    """A whole network, named by its content if it is given no other name."""
    return TimedGraph(subject or f"network {digest(onnx)}", lambda: onnx)


def anchor() -> TimedGraph:
    """A conv that keeps all cores busy for some tenths of a millisecond."""
    shape = (64, 28, 28)
    conv = ConvSpec(
        in_channels=64, out_channels=64, kernel=(3, 3), padding=((1, 1), (1, 1))
    )
    program = Program((Source(shape),), (Step("conv", (0,), shape, conv=conv),))
    return TimedGraph("anchor", partial(plain_graph, program, 1))


def ends_with_free_activation(program: Program) -> bool:
    """Whether a program ends with a clamp of a conv's output: engines apply it while they
    write that output, at no cost that could be told from noise. One measurement stands
    for the program with and without it."""
    last = program.steps[-1]
    if last.kind != "act" or split_activation(last.act or "")[0] not in _CLAMPS:
        return False
    step = last.inputs[0] - len(program.sources)
    return step >= 0 and program.steps[step].kind == "conv"


def _kind(program: Program) -> str:
    """Depthwise convolutions wait for memory more than they compute."""
    convs = [step.conv for step in program.steps if step.conv]
    depthwise = any(1 < conv.groups == conv.in_channels for conv in convs)
    return "depthwise" if depthwise else ""


def _bytes(program: Program, batch: int) -> int:
    shapes = [s.shape for s in program.sources] + [s.shape for s in program.steps]
    weights = sum(step.conv.weights for step in program.steps if step.conv)
    return 4 * (batch * sum(map(math.prod, shapes)) + 2 * weights)
