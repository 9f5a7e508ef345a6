"""The Frontier: every plan that no other plan beats in latency and in importance."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from dpcompress.blueprint import Plan
from dpcompress.errors import InfeasibleBudget, UsageError
from dpcompress.files import write_text
from dpcompress.solver.graph import Floats, Graph
from dpcompress.solver.labels import Labels, on_staircase
from dpcompress.tables import ImportanceTable, LatencyTable


@dataclass(frozen=True, eq=False)
class Frontier:
    """Plans with strictly rising latency and importance, all within the limits.

    A plan's latency is the sum of its spans' rows, added in order, and then `fixed_ms`.

    epsilon: 0 where the frontier is exact. Otherwise, for every plan that is possible
        there is one here at least as important and at most 1 + epsilon times as slow
        (fixed part aside).
    limits: what is in force besides the latency, in words.
    """

    latency_ms: Floats
    importance: Floats
    epsilon: float
    fixed_ms: float
    limits: tuple[str, ...]
    _graph: Graph
    _sets: list[Labels]
    _last: Labels
    _linear: frozenset[int]
    _identity: dict[str, object]

    def __len__(self) -> int:
        return len(self.latency_ms)

    @property
    def labels(self) -> int:
        """How many labels the solve kept."""
        return sum(map(len, self._sets))

    def __iter__(self) -> Iterator[Plan]:
        return (self[row] for row in range(len(self)))

    def __getitem__(self, row: int) -> Plan:
        """Plan number `row`, from the fastest to the most important."""
        return self._plan(range(len(self))[row], None)

    def at(self, budget_ms: float) -> Plan:
        """The most important plan within `budget_ms`, end to end; of several the fastest.

        Raises:
            InfeasibleBudget: even the fastest plan takes longer.
        """
        if math.isnan(budget_ms):
            raise UsageError("The budget is not a number.", "Give it in milliseconds.")
        row = int(np.searchsorted(self.latency_ms, budget_ms, side="right")) - 1
        if row < 0:
            raise self._infeasible(budget_ms)
        return self._plan(row, budget_ms)

    def _infeasible(self, budget_ms: float) -> InfeasibleBudget:
        least = float(self.latency_ms[0])
        plan, times = self[0], self.span_latencies(0)
        slow = max(range(len(times)), key=times.__getitem__)
        parts = [f"{times[slow]:.6g} ms is the convolution of span {plan.spans[slow]}"]
        if self.fixed_ms:
            parts.insert(0, f"{self.fixed_ms:.6g} ms is the part that no plan changes")
        if self.limits:
            parts.append(f"in force are {', '.join(self.limits)}")
        return InfeasibleBudget(
            f"No plan takes at most {budget_ms:.6g} ms: the least possible latency is "
            f"{least:.6g} ms; {'; '.join(parts)}.",
            f"Ask for {math.ceil(least * 1000) / 1000:g} ms or more"
            + (", or lift a limit." if self.limits else "."),
            least_ms=least,
        )

    def span_latencies(self, row: int) -> list[float]:
        """Latency of each span of plan number `row`, in order, fixed part aside."""
        return [
            float(self._graph.parts[edge, part, 0])
            for edge in self._edges(row)
            for part in range(int(self._graph.cuts[edge]))
        ]

    def _edges(self, row: int) -> list[int]:
        edges = []
        edge, origin = int(self._last.edge[row]), int(self._last.origin[row])
        while edge >= 0:
            edges.append(edge)
            labels = self._sets[self._graph.tail[edge]]
            edge, origin = int(labels.edge[origin]), int(labels.origin[origin])
        return edges[::-1]

    def _plan(self, row: int, budget_ms: float | None) -> Plan:
        graph, boundaries, activations = self._graph, [0], []
        for edge in self._edges(row):
            boundaries.extend(graph.boundaries[edge][1:])
            if graph.head[edge] % 2:
                activations.append(int(graph.head[edge]) // 2)
        return Plan.build(
            tuple(boundaries),
            tuple(activations),
            added_activations=tuple(p for p in activations if p in self._linear),
            budget_ms=budget_ms,
            predicted_ms=float(self.latency_ms[row]),
            importance=float(self.importance[row]),
            **self._identity,
        )

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write all plans as CSV, positions separated by spaces; atomic."""
        lines = ["latency_ms,importance,boundaries,activations"]
        for plan in self:
            boundaries = " ".join(map(str, plan.boundaries))
            activations = " ".join(map(str, plan.activations))
            lines.append(
                f"{plan.predicted_ms},{plan.importance},{boundaries},{activations}"
            )
        write_text(path, "\n".join(lines) + "\n")


def last_labels(graph: Graph, sets: list[Labels]) -> Labels:
    """The plans of the label sets that are within the limits and on the frontier."""
    off, on = sets[-2:]
    last = Labels(
        np.concatenate([off.costs, on.costs]),
        np.concatenate([off.importance, on.importance]),
        np.concatenate([off.cuts, on.cuts]),
        np.concatenate([off.edge, on.edge]),
        np.concatenate([off.origin, on.origin]),
    )
    last = last.take(np.flatnonzero((last.costs <= graph.at_most).all(axis=1)))
    return last.take(on_staircase(last.costs[:, 0], last.importance, last.cuts))


def collect(
    graph: Graph,
    sets: list[Labels],
    latency: LatencyTable,
    importance: ImportanceTable,
    epsilon: float,
    limits: tuple[str, ...],
) -> Frontier:
    """The Frontier of the label sets at the last position."""
    last = last_labels(graph, sets)
    total = last.costs[:, 0] + latency.fixed_ms
    rows = on_staircase(total, last.importance, last.cuts)
    total, last = total[rows], last.take(rows)
    return Frontier(
        total,
        last.importance,
        epsilon,
        latency.fixed_ms,
        limits,
        graph,
        sets,
        last,
        importance.linear_positions,
        {
            "blueprint": latency.blueprint or importance.blueprint,
            "input": latency.input or importance.input,
        },
    )
