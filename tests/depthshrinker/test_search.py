"""The search: exactly k masks on, resumable, and faster where time counts."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dpcompress.blueprint import Blueprint, Plan, candidates
from dpcompress.depthshrinker import Found, Merger, search
from dpcompress.depthshrinker.search import FALLING, masks_on
from dpcompress.errors import BadTable, UsageError
from dpcompress.graph import trace
from dpcompress.report import plot_masks
from dpcompress.tables import LatencyTable
from dpcompress.training import Recipe
from tests.depthshrinker.networks import basic, inverted, random_table, table_of
from tests.training.networks import small_digits

SIZE = (3, 8, 8)
RECIPE = Recipe(epochs=2, batch_size=128, lr=0.05)
BLUEPRINT = trace(inverted(), SIZE)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


class Stop(Exception):
    pass


def find(keep: int, by: str = "activation", **options: object) -> Found:
    return search(
        *(inverted(), BLUEPRINT, small_digits(), keep),
        **{"by": by, "recipe": RECIPE, **options},  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(
    ("by", "keep", "masks"), [("activation", 1, 7), ("activation", 5, 7), ("block", 2, 3)]
)
def test_exactly_k_masks_are_on(by: str, keep: int, masks: int) -> None:
    found = find(keep, by)
    assert len(found.on) == keep and len(found.groups) == masks
    off = {p for n, group in enumerate(found.groups) for p in group if n not in found.on}
    original = {p for p in range(1, 12) if BLUEPRINT.has_activation(p)}
    assert set(found.activations) == original - off
    plan = Merger(BLUEPRINT).plan(found.activations)
    assert Plan.from_json(plan.to_json()) == plan
    assert set(plan.activations) == original - off

    history = found.history
    assert history.groupby("done")["on"].sum().tolist() == (
        history.groupby("done")["keep"].first().tolist()
    )
    first, last = history[history["done"] == 0], history[history["done"] == 1]
    assert first["keep"].eq(masks).all() and first["score"].eq(0).all()
    assert last["keep"].eq(keep).all()
    assert tuple(last["mask"][last["on"] == 1]) == found.on
    assert plot_masks(history).startswith(b"\x89PNG")


def test_the_number_of_masks_falls_to_k() -> None:
    counts = [masks_on(10, 4, done / 20) for done in range(21)]
    assert counts[0] == 10 and counts == sorted(counts, reverse=True)
    assert set(counts[int(20 * FALLING) :]) == {4}


def test_a_search_that_was_cut_off_finds_the_same(tmp_path: Path) -> None:
    def stop(done: int, total: int, note: str = "") -> None:
        if done == 10:
            raise Stop

    whole = find(3)
    path = tmp_path / "search.checkpoint"
    with pytest.raises(Stop):
        find(3, checkpoint=path, progress=stop)
    resumed = find(3, checkpoint=path)
    assert (resumed.on, resumed.activations) == (whole.on, whole.activations)
    assert resumed.history.equals(whole.history)


def skewed(blueprint: Blueprint, cheap: tuple[int, int]) -> LatencyTable:
    """All layers cost 1, merged or not, but for one span that costs nothing."""
    rows = [
        {"start": i, "stop": j, "latency_ms": 0.0 if (i, j) == cheap else float(j - i)}
        for i, j in candidates(blueprint)
    ]
    return table_of(blueprint, rows)


def test_with_latency_weighting_the_plan_of_equal_k_is_faster() -> None:
    """In each table another block is the only one that saves time. A search that does not
    look at them is right for one of the three; one that does, for all."""
    free = find(2, "block")
    times = []
    for cheap in ((1, 4), (4, 7), (7, 10)):
        table = skewed(BLUEPRINT, cheap)
        weighted = find(2, "block", latency=table, latency_weight=20.0)
        assert len(weighted.on) == len(free.on) == 2
        plans = [Merger(BLUEPRINT, table).plan(f.activations) for f in (free, weighted)]
        times.append([plan.predicted_ms for plan in plans])
        assert times[-1][1] == pytest.approx(0.25 + 11 - 3)
    assert sum(ours < theirs for theirs, ours in times) == 2  # type: ignore[operator]


@pytest.mark.parametrize("keep", [0, 8])
def test_a_number_that_cannot_be_kept(keep: int) -> None:
    with pytest.raises(UsageError, match="7 activations that could go"):
        find(keep)


def test_a_table_of_another_network() -> None:
    other = random_table(trace(basic(), SIZE), 0)
    with pytest.raises(BadTable, match="another network"):
        find(2, latency=other)
