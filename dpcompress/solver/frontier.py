"""The Frontier: every plan that no other plan beats in latency and in importance."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np

from dpcompress.blueprint import Choice, Plan
from dpcompress.errors import InfeasibleBudget, UsageError
from dpcompress.solver.frontier_file import write_frontier
from dpcompress.solver.graph import Floats, is_active, position_of
from dpcompress.solver.labels import Labels, LabelSets, on_staircase
from dpcompress.solver.problem import Problem


@dataclass(frozen=True, eq=False)
class Frontier:
    """The plans of strictly rising latency and importance, all within the limits.

    A plan's latency is the sum of its spans' rows, added in order, and then `fixed_ms`.

    problem: what was solved.
    epsilon: 0 where the frontier is exact. Otherwise, for every plan that is possible
        there is one here at least as important and at most 1 + epsilon times as slow
        (fixed part aside).
    """

    problem: Problem
    epsilon: float
    _sets: LabelSets

    @cached_property
    def _plans(self) -> Labels:
        """The plans, one label each: adding `fixed_ms` can make two latencies equal."""
        plans = self._sets.plans
        total = plans.costs[:, 0] + self.fixed_ms
        return plans.take(on_staircase(total, plans.importance, plans.cuts))

    @cached_property
    def latency_ms(self) -> Floats:
        """The predicted latency of each plan, end to end, rising."""
        return self._plans.costs[:, 0] + self.fixed_ms

    @property
    def importance(self) -> Floats:
        """The importance of each plan, rising."""
        return self._plans.importance

    @property
    def fixed_ms(self) -> float:
        """The part of the latency that no plan changes."""
        return self.problem.latency.fixed_ms

    @property
    def limits(self) -> tuple[str, ...]:
        """The limits and decisions in force, in words."""
        return self.problem.conditions

    @property
    def labels(self) -> int:
        """The number of labels that the solve kept."""
        return len(self._sets)

    def __len__(self) -> int:
        return len(self._plans)

    def __iter__(self) -> Iterator[Plan]:
        return (self[row] for row in range(len(self)))

    def __getitem__(self, row: int) -> Plan:
        """Make plan number `row`, from the fastest to the most important."""
        number = range(len(self))[row]  # counts -1 from the end, raises IndexError
        return self._plan(number, None)

    def at(self, budget_ms: float) -> Plan:
        """Make the most important plan that takes at most `budget_ms`, end to end.

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
        span = tuple(plan.spans[slow])
        parts = [f"{times[slow]:.6g} ms is the convolution of span {span}"]
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
        """List the latency of each span of plan number `row`, fixed part aside."""
        graph = self._sets.graph
        return [
            float(graph.parts[edge, part, 0])
            for edge in self._sets.path(self._plans, row)
            for part in range(int(graph.cuts[edge]))
        ]

    def _plan(self, row: int, budget_ms: float | None) -> Plan:
        graph, choices, activations = self._sets.graph, list[Choice](), list[int]()
        for edge in self._sets.path(self._plans, row):
            cuts, way = graph.boundaries[edge], graph.way[edge]
            for start, stop in pairwise(cuts):
                choices.append(Choice(start=start, stop=stop, way=way))
            head = int(graph.head[edge])
            if is_active(head):
                activations.append(position_of(head))
        latency, importance = self.problem.latency, self.problem.importance
        linear = importance.linear_positions
        return Plan(
            choices=tuple(choices),
            activations=tuple(activations),
            added_activations=tuple(p for p in activations if p in linear),
            budget_ms=budget_ms,
            predicted_ms=float(self.latency_ms[row]),
            importance=float(self.importance[row]),
            blueprint=latency.blueprint or importance.blueprint,
            input=latency.input or importance.input,
        )

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write all plans as CSV; see `read_frontier`."""
        write_frontier(self, path)
