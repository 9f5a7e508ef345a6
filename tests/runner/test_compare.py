"""Networks timed side by side in worlds whose clock is ours."""

import random
from dataclasses import replace

import numpy as np
import pytest

from dpcompress.runner import NETWORKS, Subject, compare, ratio
from tests.runner.world import Timed, World

ROUNDS = replace(NETWORKS, min_seconds=0)  # seconds of ours are none of a `World`


def test_ratio_cancels_the_drift_that_both_share() -> None:
    world = World(lambda now: 1 + 0.5 * np.sin(now))
    times = compare([world.subject("a", 30.0), world.subject("b", 20.0)], ROUNDS)
    faster = ratio(times["a"], times["b"])
    assert times["a"].spread_ms / times["a"].median_ms > 0.2
    assert faster.median == pytest.approx(1.5, rel=0.02)
    assert faster.low <= faster.median <= faster.high
    assert faster.spread < 0.05
    assert len(times["a"].samples_ms) == len(times["b"].samples_ms)


def test_sessions_take_turns_because_each_has_a_speed_of_its_own() -> None:
    world, speeds = World(), iter([10.0, 14.0, 11.0, 20.0, 20.0, 20.0])
    subjects = [Subject(name, lambda: Timed(world, next(speeds))) for name in ("a", "b")]
    times = compare(subjects, ROUNDS)
    assert sorted({*times["a"].samples_ms}) == pytest.approx([10, 11, 14])
    assert times["a"].median_ms == pytest.approx(11)
    assert times["b"].spread_ms == pytest.approx(0)


def test_progress_of_a_comparison_that_is_held_to_its_seconds() -> None:
    told: list[tuple[int, int]] = []
    timing = replace(NETWORKS, min_seconds=0.2, max_rounds=5, min_rounds=5)
    compare(
        [World().subject("a", 1.0)],
        timing,
        progress=lambda done, total, note: told.append((done, total)),
    )
    assert [done for done, _ in told] == list(range(1, len(told) + 1))
    assert len(told) > 5 and all(done <= total for done, total in told)
    done, total = told[len(told) // 2]
    assert done < 0.9 * total


def test_what_slows_a_whole_round_is_divided_out() -> None:
    rng = random.Random(1)
    world = World(lambda now: 1.0 + 0.6 * (int(now / 0.3) % 2) + rng.uniform(0, 0.01))
    subjects = [world.subject(f"net{i}", 5.0 + i) for i in range(8)]
    times = compare(subjects, ROUNDS)
    rates = [time.median_ms / (5.0 + i) for i, time in enumerate(times.values())]
    assert max(rates) / min(rates) < 1.02
    few = compare(subjects[:2], ROUNDS)
    assert few["net0"].spread_ms > 10 * times["net0"].spread_ms
