"""Find the chains of layers in the ops of a network."""

from __future__ import annotations

from collections.abc import Sequence, Set

from dpcompress.blueprint.data import (
    LINEAR_KINDS,
    Blueprint,
    Chain,
    Layer,
    Op,
    Skip,
)

_KINDS = LINEAR_KINDS | {"act"}


def find_chains(ops: Sequence[Op]) -> tuple[tuple[Layer, ...], tuple[Chain, ...]]:
    """Number the convolutions of a network: its layers, and the chains that they form.

    Where the network branches, the chain follows the branch with the most convolutions.
    A conv on a purely linear side branch that leaves and rejoins one chain (a projection
    shortcut, RepVGG's parallel convs) belongs to a skip and gets no number. A conv on a
    branch with activations, or across a barrier, belongs to a chain of its own.
    """
    return _Finder(ops).run()


class _Finder:
    """The state of the search: which ops are taken, and what was found so far."""

    def __init__(self, ops: Sequence[Op]) -> None:
        self.ops = ops
        self.users: list[list[int]] = [[] for _ in ops]
        for index, op in enumerate(ops):
            for source in dict.fromkeys(op.inputs):
                self.users[source].append(index)
        self.convs_ahead = self._count_convs_ahead()
        self.taken: set[int] = set()
        self.layers: list[Layer] = []
        self.chains: list[Chain] = []

    def _count_convs_ahead(self) -> list[int]:
        """Count, for each op, the most convs on a path from it that meets no barrier."""
        ahead = [0] * len(self.ops)
        for index in reversed(range(len(self.ops))):
            kind = self.ops[index].kind
            if kind != "opaque":
                rest = max((ahead[u] for u in self.users[index]), default=0)
                ahead[index] = rest + (kind == "conv")
        return ahead

    def run(self) -> tuple[tuple[Layer, ...], tuple[Chain, ...]]:
        """Find all layers and chains."""
        for index, op in enumerate(self.ops):
            while op.kind == "conv" and index not in self.taken:
                self._follow(self._next(op.inputs[0], {"conv"}))
        return tuple(self.layers), tuple(self.chains)

    def _follow(self, conv: int | None) -> None:
        """Add the chain that begins with `conv`."""
        assert conv is not None
        entry, start = self.ops[conv].inputs[0], len(self.layers)
        members = {entry}
        while conv is not None:
            layer, conv = self._layer(conv)
            self.layers.append(layer)
            members.update((layer.conv, *layer.tail))
        self.chains.append(Chain(entry=entry, start=start, stop=len(self.layers)))
        for layer in self.layers[start:]:
            for index in layer.tail:
                if self.ops[index].kind == "add":
                    self._claim_branches(index, members)

    def _layer(self, conv: int) -> tuple[Layer, int | None]:
        """Make the layer of `conv`; returns also the conv that continues the chain."""
        self.taken.add(conv)
        tail: list[int] = []
        act = None
        here = conv
        while True:
            step = self._next(here, _KINDS if act is None else _KINDS - {"act"})
            if step is None or self.ops[step].kind == "conv":
                return Layer(conv=conv, tail=tuple(tail), act=act), step
            if self.ops[step].kind == "act":
                act = step
            self.taken.add(step)
            tail.append(step)
            here = step

    def _next(self, index: int, kinds: Set[str]) -> int | None:
        """Find the op on the main path among those of `kinds` that read op `index`."""

        def eligible(user: int) -> bool:
            free = user not in self.taken and self.ops[user].kind in kinds
            is_add = self.ops[user].kind == "add"
            return free and not (is_add and self._meets_a_barrier(index, user))

        def rank(user: int) -> tuple[int, int, int]:
            conv = self.ops[user].conv
            taps = conv.kernel[0] * conv.kernel[1] if conv else 0
            return (self.convs_ahead[user], taps, -user)

        return max(filter(eligible, self.users[index]), key=rank, default=None)

    def _meets_a_barrier(self, index: int, add: int) -> bool:
        """Say whether a branch from op `index` to `add` holds a barrier: then the add
        ends a block (a residual one with squeeze-excite) that the chain must enter first.
        """
        reached = {index: False}
        for here in range(index + 1, add):
            sources = [i for i in self.ops[here].inputs if i in reached]
            if sources:
                barred = any(reached[i] for i in sources)
                reached[here] = barred or self.ops[here].kind == "opaque"
        return any(reached.get(i, False) for i in self.ops[add].inputs)

    def _claim_branches(self, add: int, members: set[int]) -> None:
        """Take the linear side branches from ops of the chain to the op `add`."""
        for source in self.ops[add].inputs:
            branch: set[int] = set()
            todo = [source]
            while todo:
                index = todo.pop()
                if index in members or index in branch:
                    continue
                if index in self.taken or self.ops[index].kind not in LINEAR_KINDS:
                    branch = set()
                    break
                branch.add(index)
                todo.extend(self.ops[index].inputs)
            self.taken |= branch


def skips(blueprint: Blueprint) -> tuple[Skip, ...]:
    """Find every tensor that joins a chain at an add, but not from the layer before."""
    ops, found = blueprint.ops, []
    for chain in blueprint.chains:
        position = {chain.entry: chain.start}
        for number in range(chain.start + 1, chain.stop + 1):
            layer = blueprint.layers[number - 1]
            position |= dict.fromkeys((layer.conv, *layer.tail), number)
            previous = layer.conv
            for index in layer.tail:
                if ops[index].kind == "add":
                    for source in ops[index].inputs:
                        if source != previous:
                            found.append(_skip(blueprint, position, source, number))
                previous = index
    return tuple(found)


def _skip(
    blueprint: Blueprint, position: dict[int, int], source: int, target: int
) -> Skip:
    """Trace the tensor of op `source` back to the chain whose ops are in `position`."""
    ops, convs = blueprint.ops, []
    sources: set[int | None] = set()
    seen, todo = set(), [source]
    while todo:
        index = todo.pop()
        if index in seen:
            continue
        seen.add(index)
        if index in position:
            sources.add(position[index])
        elif index in blueprint.position_of or ops[index].kind not in LINEAR_KINDS:
            sources.add(None)
        else:
            if ops[index].kind == "conv":
                convs.append(ops[index].name)
            todo.extend(ops[index].inputs)
    only = sources.pop() if len(sources) == 1 else None
    return Skip(only, target, tuple(convs))
