"""From kept activations to a Plan, and what each of them costs in time."""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import cached_property

from dpcompress.blueprint import Blueprint, Plan, candidates
from dpcompress.depthshrinker.groups import Group, block_edges
from dpcompress.errors import BadTable
from dpcompress.solver.stage1 import SpanCosts, Stretch, span_costs, stretches
from dpcompress.tables import MERGE, Key, LatencyTable

MOST_GROWTH = 3.0
"""A whole block, inverted or not, takes up to about twice its multiply-accumulates when
merged, part of an inverted residual 4 to 9 times, which no saved layer makes up for."""


class Merger:
    """Where the layers between kept activations are cut into convolutions.

    With a latency table: where it is fastest (Kim et al. 2023, Alg. 1). Without: into the
    fewest convolutions, of those the ones with the fewest multiply-accumulates, but none
    across the linear end of a block, as published, nor of more than MOST_GROWTH times the
    multiply-accumulates that it replaces.

    Raises:
        BadTable: the table is of another network.
    """

    def __init__(self, blueprint: Blueprint, latency: LatencyTable | None = None) -> None:
        if latency is not None:
            latency.require(blueprint.digest)
        self.blueprint, self.latency = blueprint, latency
        self.costs = _sizes(blueprint) if latency is None else span_costs(latency)

    @cached_property
    def _ways(self) -> dict[Key, list[Stretch]]:
        depth = self.blueprint.depth
        pairs = [(i, j) for i in range(depth) for j in range(i + 1, depth + 1)]
        return stretches(self.costs, pairs)

    def cuts(self, activations: Iterable[int]) -> list[Stretch]:
        """How each stretch between neighbouring `activations` is run."""
        ends = [0, *sorted(set(activations))]
        depth = self.blueprint.depth
        ends += [] if ends[-1] == depth else [depth]
        closed = self.blueprint.has_activation
        found = []
        for start, stop in zip(ends, ends[1:], strict=False):
            ways = self._ways.get(Key(start, stop, MERGE, closed(stop)))
            if ways is None:
                source = self.latency.source if self.latency else "the network"
                raise BadTable(
                    f"no rows lead from position {start} to {stop}.",
                    "Measure the table again; it needs every single layer.",
                    path=source,
                )
            found += ways
        return found

    def latency_ms(self, activations: Iterable[int]) -> float:
        """Predicted, fixed part included; of an arbitrary unit without a table."""
        fixed_ms = self.latency.fixed_ms if self.latency else 0.0
        return fixed_ms + math.fsum(way.latency_ms for way in self.cuts(activations))

    def plan(self, activations: Iterable[int], *, free_activations: bool = False) -> Plan:
        """The Plan that keeps exactly these of the original's activations.

        Args:
            free_activations: add one at the end of each merged convolution that has none,
                except at the end of the network.
        """
        blueprint, kept = self.blueprint, tuple(activations)
        edges = {p for way in self.cuts(kept) for p in way.boundaries}
        plan = Plan.build(tuple(edges), kept)
        added = [
            span.stop
            for span in plan.merged
            if free_activations
            and span.stop < blueprint.depth
            and not blueprint.has_activation(span.stop)
        ]
        every = (*kept, *added)
        time = [self.costs[Key(i, j, MERGE, j in every)][0] for i, j in plan.spans]
        return Plan.build(
            plan.boundaries,
            every,
            added_activations=tuple(added),
            blueprint=blueprint.digest,
            input=blueprint.input,
            predicted_ms=self.latency and self.latency.fixed_ms + math.fsum(time),
        )


def kept_activations(
    blueprint: Blueprint, groups: tuple[Group, ...], on: Iterable[int]
) -> tuple[int, ...]:
    """Positions whose activation stays: those of the masks `on`, and those without."""
    off = {p for n, group in enumerate(groups) for p in group if n not in set(on)}
    return tuple(
        position
        for position in range(1, blueprint.depth + 1)
        if blueprint.has_activation(position) and position not in off
    )


class Price:
    """What each mask costs: the predicted time that turning it off would save, or turning
    it on would add, the others as they are; as a share of the original's time."""

    def __init__(self, merger: Merger, groups: tuple[Group, ...]) -> None:
        self.merger, self.groups = merger, groups
        self.known: dict[frozenset[int], list[float]] = {}
        self.whole = self._time(range(len(groups)))

    def _time(self, on: Iterable[int]) -> float:
        kept = kept_activations(self.merger.blueprint, self.groups, on)
        return self.merger.latency_ms(kept)

    def of(self, on: Iterable[int]) -> list[float]:
        """One number per mask, for the masks `on`."""
        state = frozenset(on)
        if state not in self.known:
            self.known[state] = [
                (self._time(state | {n}) - self._time(state - {n})) / self.whole
                for n in range(len(self.groups))
            ]
        return self.known[state]


def _sizes(blueprint: Blueprint) -> SpanCosts:
    """1 for every convolution, and a small part that grows with its MACs."""
    edges = {p for p in block_edges(blueprint) if p and not blueprint.has_activation(p)}
    spans = candidates(blueprint)
    most = 1 + sum(merged.macs for merged in spans.values())
    return {
        Key(*span, MERGE, flag): (1 + merged.macs / most,)
        for span, merged in spans.items()
        if not any(span.start < edge < span.stop for edge in edges)
        if span.length == 1 or merged.macs <= MOST_GROWTH * merged.parts_macs
        for flag in (False, True)
    }
