from itertools import pairwise

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpcompress.blueprint import Blueprint, Plan, Span, candidates, keep_everything
from dpcompress.graph import trace
from dpcompress.importance import entries, plan_of, worth_scoring
from dpcompress.tables import LatencyTable, ScoreKey
from tests.training.networks import tiny

TINY = trace(tiny(), (3, 8, 8))
"""Five layers; position 4, the end of the bottleneck, is linear."""


def table(blueprint: Blueprint, times: dict[Span, float]) -> LatencyTable:
    rows = [{"start": s.start, "stop": s.stop, "latency_ms": t} for s, t in times.items()]
    return LatencyTable(pd.DataFrame(rows), {"blueprint": blueprint.digest})


def test_flags_exist_where_the_original_is_linear() -> None:
    assert [p for p in range(1, 6) if not TINY.has_activation(p)] == [4]
    found = entries(TINY)
    assert {e.span for e in found} == set(candidates(TINY))
    for span in candidates(TINY):
        flags = {(e.act_start, e.act_stop) for e in found if e.span == span}
        starts, stops = ({0, 1} if p == 4 else {1} for p in span)
        assert flags == {(a, b) for a in starts for b in stops}


def test_plan_removes_what_is_inside_and_adds_what_is_asked() -> None:
    plan = plan_of(TINY, ScoreKey(1, 4, "merge", True, True))
    assert plan.boundaries == (0, 1, 4, 5)
    assert plan.activations == (1, 4, 5) and plan.added_activations == (4,)
    assert plan_of(TINY, ScoreKey(1, 4, "merge", True, False)).activations == (1, 5)
    assert plan_of(TINY, ScoreKey(4, 5, "merge", True, True)).added_activations == (4,)
    assert plan_of(TINY, ScoreKey(0, 1, "merge", True, True)) == keep_everything(TINY)
    assert isinstance(Plan.from_json(plan.to_json()), Plan)


def cheapest(times: dict[Span, float], boundaries: list[int]) -> float | None:
    parts = [times.get(Span(*pair)) for pair in pairwise(boundaries)]
    return None if None in parts else sum(p for p in parts if p is not None)


@given(st.data())
def test_worth_scoring_is_what_no_split_beats(data: st.DataObject) -> None:
    spans = list(candidates(TINY))
    times = {s: float(data.draw(st.integers(1, 6))) for s in spans}
    worth = worth_scoring(TINY, table(TINY, times))
    for span in spans:
        inside = range(span.start + 1, span.stop)
        splits = [
            total
            for mask in range(1, 2 ** len(inside))
            for cuts in [[m for i, m in enumerate(inside) if mask >> i & 1]]
            if (total := cheapest(times, [span.start, *cuts, span.stop])) is not None
        ]
        fastest = all(times[span] < total for total in splits)
        assert (span in worth) == (span.length == 1 or fastest)


@pytest.mark.parametrize(("flag", "worth"), [(0, True), (1, False)])
def test_worth_scoring_reads_the_row_as_in_the_original(flag: int, worth: bool) -> None:
    """Position 4 is linear: only the time without a closing activation counts."""
    rows = [{"start": i, "stop": i + 1, "latency_ms": 1.0} for i in range(5)]
    rows += [
        {"start": 1, "stop": 4, "latency_ms": 2.0, "act_stop": flag},
        {"start": 1, "stop": 4, "latency_ms": 9.0, "act_stop": 1 - flag},
    ]
    frame = pd.DataFrame(rows).astype({"act_stop": "Int64"})
    assert (Span(1, 4) in worth_scoring(TINY, LatencyTable(frame))) == worth
