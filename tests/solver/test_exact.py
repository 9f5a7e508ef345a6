"""The frontier equals what enumerating every (S, B, flags) finds."""

from __future__ import annotations

from importlib import import_module
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpcompress.errors import BadTable, InfeasibleBudget
from dpcompress.solver import Frontier, Limit, solve
from dpcompress.tables import Key
from tests.solver.brute_force import ACTIVE, OUTSIDE, Outcome, enumerate_all
from tests.solver.strategies import Instance, instances, random_instance

EXAMPLES = settings.default.max_examples
"""200 in CI, where the tests below see 1,200 instances."""

STAGE2 = import_module("dpcompress.solver.solve")


def limit(instance: Instance, at_most: float, peak: bool = False) -> Limit:
    keys = np.argwhere(~np.isnan(instance.other))
    costs = {
        Key(int(i), int(j), "merge", bool(b)): float(instance.other[i, j, b])
        for i, j, b in keys
    }
    return Limit("other", costs, at_most, peak)


def check(instance: Instance, bounded: bool, *limits: Limit, **at_most: float) -> None:
    every = enumerate_all(instance)
    tables = instance.latency_table(), instance.importance_table()
    few = 0 if bounded else STAGE2.FEW_LABELS
    with mock.patch.object(STAGE2, "FEW_LABELS", few):
        try:
            frontier = solve(*tables, limits=limits, **instance.forced)
        except (BadTable, InfeasibleBudget):
            assert every.best(np.inf, **at_most) == -np.inf
            return
    assert (np.diff(frontier.latency_ms) > 0).all()
    assert (np.diff(frontier.importance) > 0).all()
    points = frontier.latency_ms
    budgets = [*(points[1:] + points[:-1]) / 2, *points, points[-1] + 10]
    for budget in budgets:
        plan = frontier.at(float(budget))
        assert plan.predicted_ms <= budget
        assert plan.importance == pytest.approx(every.best(budget, **at_most), abs=1e-9)
    assert every.best(points[0] - 1e-9, **at_most) == -np.inf
    with pytest.raises(InfeasibleBudget) as caught:
        frontier.at(float(points[0]) - 1e-6)
    assert caught.value.least_ms == points[0]
    check_plans(instance, frontier, every)


def check_plans(instance: Instance, frontier: Frontier, every: Outcome) -> None:
    """Each plan is what it says: its own rows, added up by hand, give its numbers."""
    for plan in frontier:
        latency = 0.0
        for start, stop in plan.spans:
            latency += instance.times[start, stop, int(stop in plan.activations)]
        assert latency + instance.fixed_ms == plan.predicted_ms
        same = np.ones(len(every.states), dtype=bool)
        for position in range(1, instance.depth + 1):
            states = every.states[:, position]
            same &= (states != OUTSIDE) == (position in plan.boundaries)
            same &= (states == ACTIVE) == (position in plan.activations)
        assert plan.importance == pytest.approx(every.importance[same].max(), abs=1e-9)


@settings(max_examples=3 * EXAMPLES)
@given(instances(), st.booleans())
def test_every_budget(instance: Instance, bounded: bool) -> None:
    check(instance, bounded)


@settings(max_examples=EXAMPLES)
@given(instances(force=True), st.booleans())
def test_forced_decisions(instance: Instance, bounded: bool) -> None:
    check(instance, bounded)


@settings(max_examples=EXAMPLES)
@given(instances(), st.floats(0, 1), st.booleans())
def test_second_limit(instance: Instance, share: float, bounded: bool) -> None:
    reached = enumerate_all(instance).other
    at_most = float(np.quantile(reached, share)) if len(reached) else 1.0
    check(instance, bounded, limit(instance, at_most), other=at_most)


@settings(max_examples=EXAMPLES)
@given(instances(force=True), st.floats(0, 3), st.floats(0, 1))
def test_two_limits_and_forced_decisions(
    instance: Instance, peak: float, share: float
) -> None:
    reached = enumerate_all(instance).other
    at_most = float(np.quantile(reached, share)) if len(reached) else 1.0
    limits = limit(instance, at_most), limit(instance, peak, peak=True)
    check(instance, True, *limits, other=at_most, peak=peak)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_ten_positions(seed: int) -> None:
    check(random_instance(10, seed, whole=seed % 2 == 1), bounded=seed % 4 < 2)


@settings(max_examples=EXAMPLES // 5)
@given(instances(), st.sampled_from([0.001, 0.1, 0.5]))
def test_epsilon_keeps_its_promise(instance: Instance, epsilon: float) -> None:
    every = enumerate_all(instance)
    if not len(every.latency):
        return
    frontier = solve(
        instance.latency_table(), instance.importance_table(), epsilon=epsilon
    )
    variable = frontier.latency_ms - instance.fixed_ms
    for latency, importance in zip(every.latency, every.importance, strict=True):
        within = variable <= (latency - instance.fixed_ms) * (1 + epsilon) + 1e-9
        assert frontier.importance[within].max(initial=-np.inf) >= importance - 1e-9


@settings(max_examples=EXAMPLES // 5)
@given(instances())
def test_ties_go_to_fewer_boundaries(instance: Instance) -> None:
    every = enumerate_all(instance)
    if not len(every.latency):
        return
    cuts = (every.states != OUTSIDE).sum(axis=1)
    for plan in solve(instance.latency_table(), instance.importance_table()):
        equal = (every.latency == plan.predicted_ms) & (
            every.importance == plan.importance
        )
        assert len(plan.boundaries) == cuts[equal].min()


@settings(max_examples=EXAMPLES // 5)
@given(instances())
def test_the_same_tables_give_the_same_plans(instance: Instance) -> None:
    if not len(enumerate_all(instance).latency):
        return
    tables = instance.latency_table(), instance.importance_table()
    assert list(solve(*tables)) == list(solve(*tables))
