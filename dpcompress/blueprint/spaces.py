"""Channel spaces: which tensors share their channels, and which are private to a span.

A space is a set of tensors whose channels correspond one to one: a convolution's output,
and what norms, activations, poolings, pads, depthwise convolutions, adds and gates make
of it. Its width can change only for all of them at once. docs/method.md §10.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from functools import lru_cache
from math import lcm

from dpcompress.blueprint.data import Blueprint, ConvSpec, Frozen, Op, Span
from dpcompress.blueprint.examine import Illegal

_LONGEST_HOME = 8  # layers: more than the blocks of known networks have
_KEEPS_CHANNELS = frozenset({"norm", "act", "avgpool", "pad", "identity"})
_KEEPING_ROLES = frozenset({"keeps", "gate"})


class Space(Frozen):
    """A channel space of a network.

    ops: ops whose outputs have these channels, in order.
    channels: the width.
    unit: channels that can go only together (the group width of a grouped convolution).
    writers, readers: dense convolutions and fully connected layers that make the
        channels, and that consume them.
    fixed: why the width cannot change, "" if it can.
    """

    ops: tuple[int, ...]
    channels: int
    unit: int
    writers: tuple[int, ...]
    readers: tuple[int, ...]
    fixed: str


class Region(Frozen):
    """The ops between two positions: every op that depends on the tensor `entry` and
    that the tensor `exit` depends on, `exit` included, in order."""

    span: Span
    entry: int
    exit: int
    ops: tuple[int, ...]


@lru_cache(maxsize=8)
def spaces(blueprint: Blueprint) -> tuple[Space, ...]:
    """List all channel spaces of a network, in the order of their first op."""
    return _Finder(blueprint).run()


def region(blueprint: Blueprint, span: Span) -> Region | Illegal:
    """The ops between the two positions of `span`, if they have one entry and one exit.

    Barriers may lie inside: a region need not be linear, only closed.
    """
    start, stop = span
    if not 0 <= start < stop <= blueprint.depth:
        return Illegal(span, f"positions run from 0 to {blueprint.depth}")
    entry, exit = blueprint.entry(Span(start, start + 1)), blueprint.layers[stop - 1].out
    ahead = {entry}
    for index in range(entry + 1, exit + 1):
        if not ahead.isdisjoint(blueprint.ops[index].inputs):
            ahead.add(index)
    inside: set[int] = set()
    todo = [exit]
    while todo:
        index = todo.pop()
        if index in inside or index == entry:
            continue
        op = blueprint.ops[index]
        if index not in ahead:
            return Illegal(span, f"it also needs {op.name}, from outside the span")
        inside.add(index)
        todo.extend(op.inputs)
    for index in sorted(inside - {exit}):
        if index == blueprint.output:
            name = blueprint.ops[index].name
            return Illegal(span, f"{name} is an output of the network")
        for user in blueprint.consumers[index]:
            if user not in inside:
                names = blueprint.ops[index].name, blueprint.ops[user].name
                return Illegal(span, "{} is also used by {}".format(*names))
    layers = [n for n, layer in enumerate(blueprint.layers, 1) if layer.conv in inside]
    if layers != list(range(start + 1, stop + 1)):
        return Illegal(span, "its layers are not those between its two positions")
    return Region(span=span, entry=entry, exit=exit, ops=tuple(sorted(inside)))


def private_spaces(blueprint: Blueprint, span: Span) -> tuple[Space, ...] | Illegal:
    """The spaces of free width that only ops inside `span` write and read."""
    found = region(blueprint, span)
    if isinstance(found, Illegal):
        return found
    inside = set(found.ops)
    own = tuple(
        space
        for space in spaces(blueprint)
        if not space.fixed
        and inside.issuperset({*space.ops, *space.readers})
        and found.exit not in space.ops
    )
    return own or Illegal(span, "no channels are private to it")


def homes(blueprint: Blueprint) -> dict[Span, tuple[Space, ...]]:
    """Map each shortest span, of up to 8 layers, to the spaces that are private to it and
    written by a layer. Spaces that several blocks share are absent."""
    convs = {layer.conv for layer in blueprint.layers}
    found: dict[Space, Span] = {}
    for length in range(1, _LONGEST_HOME + 1):
        for start in range(blueprint.depth - length + 1):
            span = Span(start, start + length)
            own = private_spaces(blueprint, span)
            if isinstance(own, Illegal):
                continue
            for space in own:
                if not convs.isdisjoint(space.writers):
                    found.setdefault(space, span)
    spans = sorted(set(found.values()))
    return {s: tuple(own for own, home in found.items() if home == s) for s in spans}


class _Finder:
    """Finds the spaces: unites the outputs of ops whose channels correspond."""

    def __init__(self, blueprint: Blueprint) -> None:
        self.blueprint, self.ops = blueprint, blueprint.ops
        self.parent = list(range(len(self.ops)))
        self.units: dict[int, int] = defaultdict(lambda: 1)
        self.fixed: dict[int, str] = {}
        self.readers: dict[int, list[int]] = defaultdict(list)
        self.writers: list[int] = []

    def run(self) -> tuple[Space, ...]:
        for index, op in enumerate(self.ops):
            self._take(index, op)
        self._fix(self.blueprint.output, "it is the network's output")
        members: dict[int, list[int]] = defaultdict(list)
        for index in range(len(self.ops)):
            members[self._root(index)].append(index)
        return tuple(self._spaces(members))

    def _spaces(self, members: dict[int, list[int]]) -> Iterator[Space]:
        for own in members.values():
            shape = self.ops[own[0]].shape
            yield Space(
                ops=tuple(own),
                channels=shape[0] if shape else 1,
                unit=lcm(*(self.units[index] for index in own)),
                writers=tuple(index for index in own if index in self.writers),
                readers=tuple(sorted(r for index in own for r in self.readers[index])),
                fixed=next((self.fixed[i] for i in own if i in self.fixed), ""),
            )

    def _take(self, index: int, op: Op) -> None:
        if op.kind == "input":
            self._fix(index, "it is the network's input")
        elif op.kind in _KEEPS_CHANNELS or op.kind == "add" or op.role in _KEEPING_ROLES:
            for source in op.inputs:
                self._unite(source, index)
        elif spec := op.conv or op.mixes:
            self._take_conv(index, op, spec)
        else:
            why = op.why or f"{op.kind} is no operation that keeps channels apart"
            for other in (index, *op.inputs):
                self._fix(other, f"{op.name}: {why}")

    def _take_conv(self, index: int, op: Op, conv: ConvSpec) -> None:
        (source,) = op.inputs
        if conv.groups == 1:
            self.readers[source].append(index)
            self.writers.append(index)
        elif conv.in_channels == conv.out_channels:
            self._unite(source, index)
            self.units[index] = conv.in_channels // conv.groups
        else:
            for other in (source, index):
                self._fix(other, f"the groups of {op.name} change their width")

    def _fix(self, index: int, why: str) -> None:
        self.fixed.setdefault(index, why)

    def _root(self, index: int) -> int:
        while self.parent[index] != index:
            index = self.parent[index]
        return index

    def _unite(self, a: int, b: int) -> None:
        if self.ops[a].shape[:1] != self.ops[b].shape[:1]:
            for index in (a, b):
                self._fix(index, f"{self.ops[b].name} changes the number of channels")
            return
        first, second = sorted((self._root(a), self._root(b)))
        self.parent[second] = first
