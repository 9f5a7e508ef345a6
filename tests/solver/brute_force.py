"""Every (S, B, flags) of an instance, one by one. Shares no code with the solver."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import product

import numpy as np

from tests.solver.strategies import Instance

OUTSIDE, CUT, LINEAR, ACTIVE = range(4)
"""A position is no boundary, one of S only, or in B with flag 0 or 1."""


@cache
def assignments(depth: int) -> np.ndarray:
    """All states of positions 0..depth; the first is ACTIVE, the last in B."""
    inner = np.array([*product(range(4), repeat=depth - 1)], dtype=int)
    count = len(inner)
    ends = np.repeat([LINEAR, ACTIVE], count)
    first = np.full(2 * count, ACTIVE)
    return np.column_stack([first, np.tile(inner, (2, 1)), ends]).astype(np.int8)


@dataclass(frozen=True)
class Outcome:
    """All assignments that are possible, with their sums."""

    states: np.ndarray
    latency: np.ndarray
    importance: np.ndarray
    other: np.ndarray
    peak: np.ndarray

    def best(self, budget: float, **at_most: float) -> float:
        """Highest importance within the budget, -inf if there is none."""
        fits = self.latency <= budget
        for name, value in at_most.items():
            fits &= getattr(self, name) <= value
        return self.importance[fits].max(initial=-np.inf)


def enumerate_all(instance: Instance) -> Outcome:
    states = assignments(instance.depth)
    count = len(states)
    latency, importance = np.zeros(count), np.zeros(count)
    other, peak = np.zeros(count), np.zeros(count)
    possible = np.ones(count, dtype=bool)
    cut, stretch = np.zeros(count, dtype=int), np.zeros(count, dtype=int)
    for position in range(1, instance.depth + 1):
        state = states[:, position]
        ends = state != OUTSIDE
        flag = (state == ACTIVE).astype(int)
        where = (cut, position, flag)
        for total, values in ((latency, instance.times), (other, instance.other)):
            total[ends] += values[where][ends]
        peak[ends] = np.maximum(peak, instance.other[where])[ends]
        for layer in instance.never_merge:
            possible &= ~(
                ends & (cut < layer) & (layer <= position) & (position - cut > 1)
            )
        for start, stop in instance.merge:
            touches = ends & (cut < stop) & (start < position)
            inside = (cut <= start) & (stop <= position) & (position - cut > 1)
            possible &= ~touches | inside
        cut = np.where(ends, position, cut)
        kept = state >= LINEAR
        before = (states[np.arange(count), stretch] == ACTIVE).astype(int)
        importance[kept] += instance.scores[stretch, position, before, flag][kept]
        stretch = np.where(kept, position, stretch)
    for position in instance.keep:
        possible &= states[:, position] == ACTIVE
    for position in instance.drop:
        possible &= states[:, position] != ACTIVE
    possible &= ~np.isnan(latency) & ~np.isnan(importance)
    return Outcome(
        states[possible],
        latency[possible] + instance.fixed_ms,
        importance[possible],
        other[possible],
        peak[possible],
    )
