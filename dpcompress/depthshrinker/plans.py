"""Plans from the activations that are kept, and what each of them costs in time."""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import cached_property
from itertools import pairwise

from dpcompress.blueprint import Blueprint, Plan, candidates
from dpcompress.depthshrinker.groups import Group, block_edges
from dpcompress.errors import BadTable
from dpcompress.solver.stage1 import SpanCosts, Stretch, span_costs, stretches
from dpcompress.tables import MERGE, Key, LatencyTable

# A whole block, inverted or not, takes up to about twice its multiply-accumulates when
# merged, part of an inverted residual 4 to 9 times, which no saved layer makes up for.
MOST_GROWTH = 3.0


class Merger:
    """Cuts the layers between kept activations into convolutions.

    With a latency table, the cuts give the fastest network (Kim et al. 2023, Alg. 1).
    Without, they give the fewest convolutions, and of those the ones with the fewest
    multiply-accumulates; but no convolution goes across the linear end of a block, as
    published, or takes more than MOST_GROWTH times the multiply-accumulates that it
    replaces.

    Raises:
        BadTable: the table is of another network.
    """

    def __init__(self, blueprint: Blueprint, latency: LatencyTable | None = None) -> None:
        if latency is not None:
            latency.require(blueprint.digest)
        self.blueprint, self.latency = blueprint, latency
        self.costs = _sizes(blueprint) if latency is None else span_costs(latency)

    @cached_property
    def _stretches(self) -> dict[Key, list[Stretch]]:
        depth = self.blueprint.depth
        pairs = [(i, j) for i in range(depth) for j in range(i + 1, depth + 1)]
        return stretches(self.costs, pairs)

    def cuts(self, activations: Iterable[int]) -> list[Stretch]:
        """Cut every stretch between neighbouring `activations`, from first to last.

        Raises:
            BadTable: the table lacks rows.
        """
        depth = self.blueprint.depth
        ends = sorted({0, *activations, depth})
        found = []
        for start, stop in pairwise(ends):
            closed = self.blueprint.has_activation(stop)
            best = self._stretches.get(Key(start, stop, MERGE, closed))
            if best is None:
                source = self.latency.source if self.latency else "the network"
                raise BadTable(
                    f"no rows lead from position {start} to {stop}.",
                    "Measure the table again; it needs every single layer.",
                    path=source,
                )
            found += best
        return found

    def plan(self, activations: Iterable[int], *, free_activations: bool = False) -> Plan:
        """Make the plan that keeps exactly these of the original's activations.

        Args:
            free_activations: add one at the end of each merged convolution that has none,
                except at the end of the network.
        """
        blueprint, kept = self.blueprint, tuple(activations)
        edges = {p for stretch in self.cuts(kept) for p in stretch.boundaries}
        plan = Plan.build(tuple(edges), kept)
        added = [
            span.stop
            for span in plan.merged
            if free_activations
            and span.stop < blueprint.depth
            and not blueprint.has_activation(span.stop)
        ]
        every = (*kept, *added)
        predicted_ms = None
        if self.latency is not None:
            keys = [Key(*span, MERGE, span.stop in every) for span in plan.spans]
            times = [self.costs[key][0] for key in keys]
            predicted_ms = self.latency.fixed_ms + math.fsum(times)
        return Plan.build(
            plan.boundaries,
            every,
            added_activations=tuple(added),
            blueprint=blueprint.digest,
            input=blueprint.input,
            predicted_ms=predicted_ms,
        )


def kept_activations(
    blueprint: Blueprint, groups: tuple[Group, ...], on: Iterable[int]
) -> tuple[int, ...]:
    """List the positions whose activation stays: its mask is `on`, or it has none."""
    off = {p for n, group in enumerate(groups) for p in group if n not in set(on)}
    return tuple(
        position
        for position in range(1, blueprint.depth + 1)
        if blueprint.has_activation(position) and position not in off
    )


class Price:
    """The price of each mask, as a share of the original's predicted time.

    It is the time that turning the mask off would save, or turning it on would add, the
    others as they are.

    Raises:
        BadTable: the table is of another network.
    """

    def __init__(
        self, blueprint: Blueprint, latency: LatencyTable, groups: tuple[Group, ...]
    ) -> None:
        self.merger, self.latency = Merger(blueprint, latency), latency
        self.groups = groups
        self.known: dict[frozenset[int], list[float]] = {}
        self.original_ms = self.predicted_ms(range(len(groups)))

    def predicted_ms(self, on: Iterable[int]) -> float:
        """Predict the time of a network with the masks `on`, fixed part included."""
        kept = kept_activations(self.merger.blueprint, self.groups, on)
        times = (stretch.latency_ms for stretch in self.merger.cuts(kept))
        return self.latency.fixed_ms + math.fsum(times)

    def of(self, on: Iterable[int]) -> list[float]:
        """Return the price of every mask while the masks `on` are on."""
        state = frozenset(on)
        if state not in self.known:
            self.known[state] = [
                (self.predicted_ms(state | {n}) - self.predicted_ms(state - {n}))
                / self.original_ms
                for n in range(len(self.groups))
            ]
        return self.known[state]


def _sizes(blueprint: Blueprint) -> SpanCosts:
    """Count 1 for every convolution, and a small part that grows with its MACs."""
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
