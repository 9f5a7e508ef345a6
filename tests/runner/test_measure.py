"""Ops timed in worlds whose clock is ours, so that the right answer is known."""

import random
import time as clock
import weakref
from collections.abc import Mapping
from importlib import import_module
from statistics import median
from types import SimpleNamespace

import pytest

from dpcompress.errors import BadInput
from dpcompress.runner import (
    OPS,
    Measurement,
    OpTiming,
    Session,
    Subject,
    measure,
    subject_timer,
)
from dpcompress.runner.subject_timer import LEAST_SAMPLES
from tests.runner.world import Notes, Timed, World

MEASURE = import_module("dpcompress.runner.measure")


def test_exact_in_a_calm_world() -> None:
    world = World()
    subjects = [world.subject(f"op{i}", 0.1 * (i + 1)) for i in range(40)]
    notes = Notes()
    steps: list[tuple[int, int]] = []
    found = measure(
        subjects,
        OPS,
        notes,
        progress=lambda done, total, note: steps.append((done, total)),
    )
    assert list(found) == [f"op{i}" for i in range(40)]
    for i, time in enumerate(found.values()):
        assert time.median_ms == pytest.approx(0.1 * (i + 1), rel=0.011)
        assert time.samples >= LEAST_SAMPLES
    assert found["op0"].samples >= OPS.min_samples
    assert notes.times == found
    assert steps == [(i, 40) for i in range(1, 41)]


def test_slow_stretches_are_told_by_the_anchor() -> None:
    """A fifth of the time the whole machine runs at a third of its speed."""
    world = World(lambda now: 3.0 if now % 0.1 < 0.02 else 1.0)
    found = measure(
        [world.subject(f"op{i}", 0.5) for i in range(12)],
        OPS,
        Notes(),
        anchor=world.subject("anchor", 0.5),
    )
    for time in found.values():
        assert time.median_ms == pytest.approx(0.5, rel=0.02)
    assert sum(time.disturbed for time in found.values()) > 0


def test_noise_costs_samples_up_to_the_limit() -> None:
    rng = random.Random(0)
    world = World(lambda now: rng.lognormvariate(0, 0.3))
    timing = OpTiming(anchor_tolerance=float("inf"), min_samples=9, max_samples=30)
    (time,) = measure([world.subject("op", 1.0)], timing, Notes()).values()
    assert time.samples == 30
    assert time.spread_ms > 0.05
    assert time.error_ms > 0.01


def test_what_slows_everything_is_divided_out() -> None:
    """The machine swings between two speeds, 1.5 apart, for longer than a round takes:
    medians of the raw samples would be as far apart as that."""
    world = World(lambda now: 1.5 if now % 0.4 < 0.2 else 1.0)
    names = [f"op{i}" for i in range(20)]
    subjects = [world.subject(n, 0.2 + 0.01 * i) for i, n in enumerate(names)]
    found = measure(subjects, OPS, Notes())
    rates = [found[n].median_ms / (0.2 + 0.01 * i) for i, n in enumerate(names)]
    assert max(rates) / min(rates) == pytest.approx(1, rel=0.02)
    assert all(time.spread_ms < 0.02 * time.median_ms for time in found.values())


@pytest.mark.parametrize("slow_ms", [40.0, 300.0])
def test_slow_subjects_are_timed_less_often_over_the_same_rounds(slow_ms: float) -> None:
    rng = random.Random(0)
    world = World(lambda now: rng.lognormvariate(0, 0.3))
    timing = OpTiming(anchor_tolerance=float("inf"), max_seconds=0.4)
    order: list[str] = []

    class Ordered(Notes):
        def add_samples(self, samples_ms: Mapping[str, float]) -> None:
            order.extend(samples_ms)

    times = {"slow": slow_ms, "quick": 0.5}
    subjects = [world.subject(name, ms) for name, ms in times.items()]
    found = measure(subjects, timing, Ordered())
    assert found["quick"].samples > 300
    assert 20 <= found["slow"].samples <= 33
    turns = [i for i, name in enumerate(order) if name == "slow"]
    assert turns[0] < len(order) / 4 and turns[-1] > len(order) / 2


def test_a_later_call_goes_on_with_the_samples_of_an_earlier_one() -> None:
    class Killed(Exception):
        pass

    class Fragile(Notes):
        def add_samples(self, samples_ms: Mapping[str, float]) -> None:
            super().add_samples(samples_ms)
            if len(self.kept["op3"]) == 10:
                raise Killed

    world, first = World(), Fragile()
    subjects = [world.subject(f"op{i}", 0.01 * (i + 1)) for i in range(8)]
    with pytest.raises(Killed):
        measure(subjects, OPS, first)
    before = {key: len(samples) for key, samples in first.kept.items()}
    assert len(before) == 8
    second = Notes(kept=first.kept)
    found = measure(subjects, OPS, second)
    after = {key: len(samples) for key, samples in second.kept.items()}
    for i, (key, time) in enumerate(found.items()):
        assert time.samples == after[key] >= OPS.min_samples
        assert time.median_ms == pytest.approx(0.01 * (i + 1))
    # This process may lose its core meanwhile, and then all go on a little longer.
    assert min(after[key] - before[key] for key in after) < OPS.min_samples


def test_groups_bound_the_memory() -> None:
    world = World()
    subjects = [world.subject(f"op{i}", 1.0, size=40) for i in range(6)]

    def loaded(**limits: int) -> list[int]:
        """How many sessions had been loaded when each subject was done."""
        world.loaded.clear()
        counts: list[int] = []

        class Counting(Notes):
            def finish(self, key: str, time: Measurement) -> None:
                counts.append(len(world.loaded))

        measure(subjects, OpTiming(**limits), Counting())
        return counts

    def in_groups(of: int, sessions: int) -> list[int]:
        """The same for groups `of` so many subjects. Every group but the first loads
        those before it once more, as references."""
        counts: list[int] = []
        for before in range(0, 6, of):
            total = (counts[-1] if counts else 0) + before + of * sessions
            counts += [total] * of
        return counts

    assert loaded() == in_groups(of=6, sessions=3)
    assert loaded(group_bytes=500) == in_groups(of=6, sessions=500 // (6 * 40))
    assert loaded(group_bytes=100) == in_groups(of=100 // 40, sessions=1)
    assert loaded(group_sessions=7) == in_groups(of=7 // 3, sessions=3)


def test_a_group_ends_when_memory_does_and_leaves_none_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever was said of the sizes of sessions."""
    alive: weakref.WeakSet[Session] = weakref.WeakSet()
    most = 0
    world = World()

    def subject(name: str) -> Subject:
        def load() -> Session:
            nonlocal most
            session = Timed(world, 1.0)
            alive.add(session)
            most = max(most, len(alive))
            return session

        return Subject(name, load)

    monkeypatch.setattr(MEASURE, "available_bytes", lambda: 100 - len(alive))
    found = measure([subject(f"op{i}") for i in range(60)], OPS, Notes())
    assert len(found) == 60
    # A group is full when less than a quarter of the 100 is left; the last subject may
    # begin its three sessions when 75 are alive.
    assert 75 <= most <= 75 + 3


def test_what_is_timed_later_is_given_at_the_speed_of_before() -> None:
    """The machine is 1.3 times slower in the second half of it all, for good."""
    rng = random.Random(0)
    world = World(lambda now: (1.3 if slow else 1.0) * rng.lognormvariate(0, 0.05))
    subjects = {f"op{i}": 0.2 + 0.01 * i for i in range(30)}
    slow = False
    every = [world.subject(name, ms) for name, ms in subjects.items()]
    notes = Notes()
    before = measure(every[:25], OPS, notes)
    slow = True
    rates = [time.median_ms / subjects[name] for name, time in before.items()]
    for name, time in measure(every, OPS, notes).items():
        assert time.median_ms / subjects[name] == pytest.approx(median(rates), rel=0.02)
        assert name not in before or time == before[name]
    alone = measure(every[25:], OPS, Notes())
    assert alone["op29"].median_ms > 1.2 * subjects["op29"]


def test_rows_are_of_the_machine_when_it_is_fast() -> None:
    """How often it is slow does not show, if it is fast for a tenth of the time."""
    for share in (0.2, 0.8):
        world = World(lambda now, share=share: 1.4 if now % 2 < 2 * share else 1.0)  # type: ignore[misc]
        subjects = [world.subject(f"op{i}", 0.2 + 0.01 * i) for i in range(20)]
        found = measure(subjects, OPS, Notes())
        for i, time in enumerate(found.values()):
            assert time.median_ms == pytest.approx(0.2 + 0.01 * i, rel=0.03)


@pytest.mark.parametrize("share", [0.2, 0.8])
def test_what_slows_one_kind_is_divided_out_of_that(
    share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory is slow for a fifth or for most of the time."""
    world = World(of_kind=lambda now: 1.4 if now % 2 < 2 * share else 1.0)
    ticks = SimpleNamespace(perf_counter=lambda: world.now)
    monkeypatch.setattr(subject_timer, "time", ticks)
    rows = {f"op{i}": (0.2 + 0.01 * i, "depthwise" if i < 8 else "") for i in range(30)}
    subjects = [world.subject(n, ms, kind=kind) for n, (ms, kind) in rows.items()]
    found = measure(subjects, OPS, Notes())
    for name, (ms, _) in rows.items():
        assert found[name].median_ms == pytest.approx(ms, rel=0.02)


def test_rejected_subjects_are_left_out_or_raised() -> None:
    def reject() -> Session:
        raise BadInput("no such operator")

    class Strict(Notes):
        def reject(self, key: str, error: BadInput) -> None:
            raise error

    world, notes = World(), Notes()
    subjects = [world.subject("good", 1.0), Subject("bad", reject)]
    assert list(measure(subjects, OPS, notes)) == ["good"]
    assert list(notes.refused) == ["bad"]
    with pytest.raises(BadInput, match="no such operator"):
        measure(subjects, OPS, Strict())


def test_a_median_is_the_average_of_sessions_that_differ() -> None:
    world, speeds = World(), iter([10.0, 14.0, 12.0])
    found = measure([Subject("a", lambda: Timed(world, next(speeds)))], OPS, Notes())["a"]
    assert found.median_ms == pytest.approx(12, rel=0.01)
    world, speeds = World(), iter([10.0, 10.1, 13.0])
    found = measure([Subject("a", lambda: Timed(world, next(speeds)))], OPS, Notes())["a"]
    assert found.median_ms == pytest.approx((10 + 10.1 + 13) / 3, rel=0.01)
    assert found.spread_ms == pytest.approx(0)


def test_what_is_slow_to_build_is_built_once() -> None:
    world = World()
    subject = world.subject("a", 1.0)

    def slowly() -> Session:
        clock.sleep(0.03)
        return subject.load()

    measure([Subject("a", slowly)], OpTiming(max_seconds=0.02), Notes())
    assert world.loaded == ["a"]
