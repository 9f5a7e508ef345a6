"""The loop on frontiers of random instances; the measured world is a function of ours."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpcompress.blueprint import Plan
from dpcompress.errors import BadTable, InfeasibleBudget, UsageError
from dpcompress.pipeline.closed_loop import close_loop
from dpcompress.solver import Frontier, solve
from tests.solver.strategies import random_instance


def frontier_of(seed: int, depth: int = 9) -> Frontier | None:
    instance = random_instance(depth, seed)
    try:
        return solve(instance.latency_table(), instance.importance_table())
    except (BadTable, InfeasibleBudget):
        return None


def same(a: Plan, b: Plan) -> bool:
    return (a.boundaries, a.activations) == (b.boundaries, b.activations)


class World:
    """What a network really takes: (1 + slope) of its prediction, an offset, and up to
    `noise` more or less, always the same for the same plan."""

    def __init__(self, slope: float, offset: float = 0.0, noise: float = 0.0) -> None:
        self.slope, self.offset, self.noise = slope, offset, noise
        self.built: list[Plan] = []

    def truth(self, plan: Plan) -> float:
        assert plan.predicted_ms is not None
        key = sum(p * p for p in (*plan.boundaries, *plan.activations)) % 101 / 50 - 1
        return plan.predicted_ms * (1 + self.slope + self.noise * key) + self.offset

    def measure(self, plan: Plan) -> float:
        self.built.append(plan)
        return self.truth(plan)


seeds, shares = st.integers(0, 200), st.floats(0.05, 1.2)


@given(seeds, shares, st.floats(-0.4, 0.6), st.floats(0, 0.1))
def test_ends_within_the_budget_and_says_so(
    seed: int, share: float, slope: float, noise: float
) -> None:
    frontier = frontier_of(seed)
    if frontier is None:
        return
    world = World(slope, 0.1, noise)
    low, high = world.truth(frontier[0]), world.truth(frontier[-1])
    budget = low + share * (high - low)
    try:
        plan, done = close_loop(frontier, budget, world.measure)
    except InfeasibleBudget as error:
        assert world.truth(frontier[0]) > budget
        assert error.least_ms > budget
        return
    assert plan.measured_ms == done.measured_ms <= plan.budget_ms == budget
    names = [(p.boundaries, p.activations) for p in world.built]
    assert len(set(names)) == len(names) == len(done.trials) <= 12
    fitting = [t.row for t in done.trials if t.measured_ms <= budget]
    best = frontier[max(fitting)]
    assert same(best, plan) and plan.predicted_ms == best.predicted_ms
    assert done.measured_ms == world.truth(best)


@given(seeds, shares, st.floats(-0.4, 0.6))
def test_finds_the_best_plan_where_the_error_is_linear(
    seed: int, share: float, slope: float
) -> None:
    """Residuals linear in the prediction are interpolated exactly: the plan is the most
    important one that truly fits, if enough networks may be built."""
    frontier = frontier_of(seed)
    if frontier is None:
        return
    world = World(slope, 0.05)
    times = [world.truth(plan) for plan in frontier]
    budget = times[0] + share * (times[-1] - times[0])
    if slope < 0 or budget < times[0]:  # extrapolated by a constant: only one-sided
        return
    plan, done = close_loop(frontier, budget, world.measure, max_trials=len(frontier) + 1)
    assert done.settled
    best = max(row for row, time in enumerate(times) if time <= budget)
    assert same(plan, frontier[best])


def test_a_true_table_needs_one_network() -> None:
    frontier = frontier_of(1)
    assert frontier is not None
    budget = float(frontier.latency_ms[len(frontier) // 2])
    plan, done = close_loop(frontier, budget, World(0.0).measure)
    assert len(done.trials) == 1 and done.settled
    assert same(plan, frontier[len(frontier) // 2])
    assert done.below == pytest.approx(0)
    assert "higher importance take" in done.why


def test_a_loose_budget_has_no_better_plan() -> None:
    frontier = frontier_of(1)
    assert frontier is not None
    plan, done = close_loop(frontier, 1e6, World(0.0).measure)
    assert same(plan, frontier[-1]) and "no plan of higher" in done.why


def test_the_last_trial_is_the_fastest_plan() -> None:
    """Without it a loop that is cut short could end with nothing although a plan fits."""
    frontier = frontier_of(1)
    assert frontier is not None and len(frontier) > 4
    world = World(0.5)
    budget = world.truth(frontier[0]) * 1.001
    plan, done = close_loop(frontier, budget, world.measure, max_trials=2)
    assert same(plan, frontier[0]) and [t.row for t in done.trials][-1] == 0


def test_impossible_wishes() -> None:
    frontier = frontier_of(1)
    assert frontier is not None
    least = World(0.5).truth(frontier[0])
    with pytest.raises(InfeasibleBudget) as caught:
        close_loop(frontier, least * 0.99, World(0.5).measure)
    assert caught.value.least_ms == pytest.approx(least)
    with pytest.raises(UsageError):
        close_loop(frontier, float("nan"), World(0.0).measure)
    with pytest.raises(UsageError):
        close_loop(frontier, 1.0, World(0.0).measure, max_trials=0)
