"""Plans from kept activations, against all cuts of the network."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpcompress.blueprint import Blueprint
from dpcompress.depthshrinker.groups import mask_groups
from dpcompress.depthshrinker.plans import Merger, Price, kept_activations
from dpcompress.errors import BadTable
from dpcompress.graph import linearize, merge, trace
from tests.depthshrinker.networks import (
    basic,
    inverted,
    least_ms,
    plain,
    random_table,
)
from tests.graph.networks import randomise

SIZE = (3, 8, 8)
INVERTED, BASIC = trace(inverted(), SIZE), trace(basic(), (3, 16, 16))
GROUPS = mask_groups(INVERTED, "activation")


@given(st.sets(st.sampled_from(range(len(GROUPS)))), st.integers(0, 10**6))
def test_cut_where_it_is_fastest(on: set[int], seed: int) -> None:
    table = random_table(INVERTED, seed)
    kept = kept_activations(INVERTED, GROUPS, on)
    plan = Merger(INVERTED, table).plan(kept)
    assert plan.activations == kept and plan.added_activations == ()
    assert plan.predicted_ms == pytest.approx(least_ms(INVERTED, table, kept))


@given(st.sets(st.sampled_from(range(len(GROUPS)))), st.integers(0, 10**6))
def test_a_mask_costs_what_turning_it_off_saves(on: set[int], seed: int) -> None:
    table = random_table(INVERTED, seed)
    price = Price(INVERTED, table, GROUPS)

    def time(masks: set[int]) -> float:
        return least_ms(INVERTED, table, kept_activations(INVERTED, GROUPS, masks))

    whole = time(set(range(len(GROUPS))))
    for mask, found in enumerate(price.of(on)):
        saved = time(on | {mask}) - time(on - {mask})
        assert found == pytest.approx(saved / whole, abs=1e-9)


def spans(blueprint: Blueprint, off: list[int], **options: bool) -> list[tuple[int, int]]:
    every = range(1, blueprint.depth + 1)
    kept = [p for p in every if blueprint.has_activation(p) and p not in off]
    return [tuple(s) for s in Merger(blueprint).plan(kept, **options).merged]


def test_without_a_table_each_linear_block_becomes_one_convolution() -> None:
    assert spans(INVERTED, [2, 3, 8, 9]) == [(1, 4), (7, 10)]
    # Two neighbouring blocks do not grow into one larger kernel.
    assert spans(INVERTED, [2, 3, 5, 6, 8, 9]) == [(1, 4), (4, 7), (7, 10)]
    assert spans(BASIC, [2]) == [(1, 3)]
    assert spans(BASIC, [2, 4]) == [(1, 3), (3, 5)]
    # An activation between two blocks that is gone is there to be merged over.
    assert spans(BASIC, [2, 3, 4]) == [(1, 5)]
    assert spans(BASIC, []) == []
    # Depthwise and projection as one dense 3x3: 9 · 16 · 8 against 9 · 16 + 16 · 8.
    assert spans(INVERTED, [3]) == []


def test_free_activations_close_merged_linear_blocks() -> None:
    kept = kept_activations(INVERTED, GROUPS, {0, 3, 4})
    plan = Merger(INVERTED).plan(kept, free_activations=True)
    assert [tuple(s) for s in plan.merged] == [(1, 4), (7, 10)]
    assert plan.added_activations == (4, 10)
    assert set(plan.activations) == {*kept, 4, 10}


def test_added_activations_are_in_the_predicted_time() -> None:
    table = random_table(INVERTED, 3)
    kept = kept_activations(INVERTED, GROUPS, ())
    bare, closed = (
        Merger(INVERTED, table).plan(kept, free_activations=free)
        for free in (False, True)
    )
    frame = table.frame.set_index(["start", "stop", "act_stop"])["latency_ms"]
    more = sum(
        frame[i, j, 1] - frame[i, j, 0]
        for i, j in closed.spans
        if j in closed.added_activations
    )
    assert bare.boundaries == closed.boundaries and bare.predicted_ms is not None
    assert closed.predicted_ms == pytest.approx(bare.predicted_ms + more)


@pytest.mark.parametrize("make", [inverted, basic, plain])
@pytest.mark.parametrize("free", [False, True])
def test_every_plan_merges_exactly(make, free: bool) -> None:  # type: ignore[no-untyped-def]
    model = make()
    blueprint = trace(model, SIZE)
    groups = mask_groups(blueprint, "activation")
    kept = kept_activations(blueprint, groups, range(0, len(groups), 3))
    for latency in (None, random_table(blueprint, 1)):
        plan = Merger(blueprint, latency).plan(kept, free_activations=free)
        network = linearize(model, plan)
        randomise(network, SIZE)
        _, certificate = merge(network)
        assert certificate.holds


def test_a_table_of_another_network() -> None:
    with pytest.raises(BadTable, match="another network or input size"):
        Merger(BASIC, random_table(INVERTED, 0))
