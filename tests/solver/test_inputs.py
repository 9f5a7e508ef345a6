"""What people get wrong, and what the plan and its explanation say."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dpcompress.blueprint import (
    Blueprint,
    Chain,
    ConvSpec,
    Layer,
    Op,
    candidates,
)
from dpcompress.errors import BadTable, DpcompressError, InfeasibleBudget, UsageError
from dpcompress.solver import (
    ApproximateFrontier,
    Limit,
    Problem,
    explain,
    latency_limit,
    mac_limit,
    memory_limit,
    parameter_limit,
    parse_budget,
    read_frontier,
    solve,
    upper_bound,
)
from dpcompress.tables import ImportanceTable, Key, LatencyTable
from experiments.solver.synthetic import chain


def tables(
    times: dict[tuple[int, int], float],
    scores: dict[tuple[int, int, int, int], float],
    **header: object,
) -> tuple[LatencyTable, ImportanceTable]:
    rows = [(*span, time, 0.1 * time) for span, time in times.items()]
    columns = ["start", "stop", "latency_ms", "spread_ms"]
    latency = LatencyTable(pd.DataFrame(rows, columns=columns), header, "T.csv")
    columns = ["start", "stop", "act_start", "act_stop", "importance"]
    rows = [(*key, score) for key, score in scores.items()]
    return latency, ImportanceTable(pd.DataFrame(rows, columns=columns), {}, "I.csv")


THREE = (
    {(0, 1): 2.0, (1, 2): 2.0, (2, 3): 2.0, (0, 2): 1.5, (1, 3): 5.0},
    {
        (0, 1, 1, 1): 0.0,
        (1, 2, 1, 1): 0.0,
        (1, 2, 1, 0): -0.125,
        (2, 3, 1, 1): 0.0,
        (2, 3, 0, 1): 0.0,
        (0, 2, 1, 1): -0.5,
        (0, 2, 1, 0): -1.0,
        (1, 3, 1, 1): -0.25,
        (0, 3, 1, 1): -2.0,
    },
)


def test_a_plan_by_hand() -> None:
    latency, importance = tables(*THREE, fixed_ms=1.0, blueprint="abc", input=(3, 8, 8))
    frontier = solve(latency, importance)
    assert frontier.latency_ms.tolist() == [4.5, 7.0]
    assert frontier.importance.tolist() == [-0.5, 0.0]
    plan = frontier.at(5.0)
    assert plan.spans == ((0, 2), (2, 3))
    assert (plan.activations, plan.added_activations) == ((2, 3), (2,))
    assert (plan.budget_ms, plan.predicted_ms, plan.importance) == (5.0, 4.5, -0.5)
    assert (plan.blueprint, plan.input) == ("abc", (3, 8, 8))
    assert frontier[-1].budget_ms is None
    assert frontier[-1].spans == ((0, 1), (1, 2), (2, 3))


def test_a_boundary_without_activation() -> None:
    """The layers 1 to 3 are linear together, and fastest as two convolutions."""
    latency, importance = tables(*THREE)
    only = ImportanceTable(importance.frame[importance.frame["stop"].eq(3)])
    plan = solve(latency, only)[0]
    assert (plan.boundaries, plan.activations) == ((0, 2, 3), (3,))


def test_a_span_that_is_run_in_another_way() -> None:
    """It is one edge of its own: its layers are not cut, and it is no part of stretches.

    The layers 1 and 2 take 1 ms in the other way, 4 ms one by one and 1.5 ms merged.
    """
    latency, importance = tables(*THREE)
    columns = ["start", "stop", "latency_ms"]
    times = latency.frame[columns].assign(way="merge").to_dict("records")
    times += [{"start": 0, "stop": 2, "way": "drop", "latency_ms": 1.0}]
    scores = importance.frame.assign(way="merge").to_dict("records")
    flags = {"act_start": 1, "act_stop": 1}
    scores += [{"start": 0, "stop": 2, "way": "drop", **flags, "importance": -0.75}]
    both = LatencyTable(pd.DataFrame(times)), ImportanceTable(pd.DataFrame(scores))
    frontier = solve(*both)
    assert frontier.latency_ms.tolist() == [3.0, 3.5, 6.0]
    assert frontier.importance.tolist() == [-0.75, -0.5, 0.0]
    assert [c.way for c in frontier[0].choices] == ["drop", "merge"]
    assert all(c.way == "merge" for plan in [*frontier][1:] for c in plan.choices)
    assert frontier.span_latencies(0) == [1.0, 2.0]
    assert len(solve(*both, never_merge=[2])) == 1


def test_the_frontier_file(tmp_path: Path) -> None:
    frontier = solve(*tables(*THREE))
    frontier.write(tmp_path / "frontier.csv")
    with open(tmp_path / "frontier.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["latency_ms"]) for row in rows] == frontier.latency_ms.tolist()
    assert [float(row["importance"]) for row in rows] == frontier.importance.tolist()
    assert (rows[0]["boundaries"], rows[0]["activations"]) == ("0 2 3", "2 3")
    for read, plan in zip(
        read_frontier(tmp_path / "frontier.csv"), frontier, strict=True
    ):
        assert (read.choices, read.activations) == (plan.choices, plan.activations)
        assert (read.predicted_ms, read.importance) == (
            plan.predicted_ms,
            plan.importance,
        )


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "line 1: the columns are not"),
        ("latency_ms,importance\n", "line 1: the columns are not"),
        ("latency_ms,importance,boundaries,activations\n1,2,0 1\n", "line 2: not a plan"),
        ("latency_ms,importance,boundaries,activations\n1,2,0 x,1\n", "line 2: not a"),
        ("latency_ms,importance,boundaries,activations\n1,2,0 1,2\n", "line 2: not a"),
    ],
)
def test_a_damaged_frontier_file_is_named(tmp_path: Path, text: str, fault: str) -> None:
    (tmp_path / "frontier.csv").write_text(text)
    with pytest.raises(BadTable, match=fault):
        read_frontier(tmp_path / "frontier.csv")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("12.5ms", 12.5),
        ("25", 25),
        (" 70 % ", 35),
        ("2x", 25),
        ("0.02s", 20),
        ("1e1", 10),
    ],
)
def test_budgets(text: str, expected: float) -> None:
    assert parse_budget(text, 50.0) == pytest.approx(expected)


@pytest.mark.parametrize("text", ["", "fast", "-5", "0", "nan", "inf", "5 s %", "1e999"])
def test_what_is_no_budget(text: str) -> None:
    with pytest.raises(UsageError):
        parse_budget(text, 50.0)
    with pytest.raises(UsageError, match="original"):
        parse_budget("70%", None)


def test_too_small_a_budget_names_the_least_latency_and_its_cause() -> None:
    frontier = solve(*tables(*THREE, fixed_ms=1.0), keep=[1])
    with pytest.raises(InfeasibleBudget) as caught:
        frontier.at(4.0)
    assert caught.value.least_ms == 7.0
    for words in ("7 ms", "1 ms is the part that no plan changes", "kept activations 1"):
        assert words in str(caught.value)
    with pytest.raises(UsageError):
        frontier.at(float("nan"))


def test_limits_that_leave_nothing_are_named() -> None:
    latency, importance = tables(*THREE)
    with pytest.raises(InfeasibleBudget, match="second device of at most 1"):
        solve(latency, importance, limits=[latency_limit("second device", latency, 1)])
    with pytest.raises(InfeasibleBudget, match="merged spans"):
        solve(latency, importance, merge=[(0, 3)])


@pytest.mark.parametrize("missing", ["T.csv", "I.csv"])
def test_a_gap_is_named(missing: str) -> None:
    times, scores = THREE
    if missing == "T.csv":
        times = {span: t for span, t in times.items() if span[0] < 2 and span != (1, 3)}
        times[2, 4] = times[3, 4] = 1.0
        scores = {**scores, (3, 4, 1, 1): 0.0}
        message = r"position 2: the single-layer span \(2, 3\)"
        times.pop((2, 4))
    else:
        scores = {key: s for key, s in scores.items() if key[1] != 3}
        scores[3, 4, 1, 1] = 0.0
        times = {**times, (3, 4): 1.0}
        message = r"position 2: the single-layer span \(2, 3\)"
    with pytest.raises(BadTable, match=message) as caught:
        solve(*tables(times, scores))
    assert (caught.value.path, caught.value.column) == (missing, "stop")


def test_flags_that_do_not_fit_are_named() -> None:
    with pytest.raises(BadTable, match="flags that fit"):
        solve(*tables({(0, 1): 1.0, (1, 2): 1.0}, {(0, 1, 1, 0): 0.0, (1, 2, 1, 1): 0.0}))


def test_tables_of_two_networks_are_refused() -> None:
    latency, importance = tables(*THREE, blueprint="abc", input=(3, 8, 8))
    frame = importance.frame
    for header in ({"blueprint": "abd"}, {"input": (3, 9, 9)}):
        with pytest.raises(BadTable, match=next(iter(header))):
            solve(latency, ImportanceTable(frame, header))
    with pytest.raises(BadTable, match="position count"):
        solve(latency, ImportanceTable(frame[frame["stop"] < 3]))


@pytest.mark.parametrize(
    "forced",
    [
        {"keep": [0]},
        {"drop": [4]},
        {"never_merge": [-1]},
        {"merge": [(2, 2)]},
        {"merge": [(0, 9)]},
        {"keep": [1], "drop": [1]},
        {"epsilon": -0.1},
        {"epsilon": float("nan")},
    ],
)
def test_wrong_decisions_are_refused(forced: dict) -> None:
    with pytest.raises(UsageError):
        solve(*tables(*THREE), **forced)


def test_pessimistic_latencies_are_an_upper_bound() -> None:
    latency, importance = tables(*THREE)
    raised = upper_bound(latency).frame["latency_ms"]
    assert raised.tolist() == pytest.approx(
        (latency.frame["latency_ms"] * 1.1645).tolist()
    )
    careful = solve(latency, importance, pessimistic=True)
    assert careful.latency_ms.tolist() == pytest.approx([3.5 * 1.1645, 6 * 1.1645])


def test_too_many_labels_are_announced() -> None:
    latency, importance = chain(60, 8, 0)
    exact = solve(latency, importance)
    with pytest.warns(ApproximateFrontier, match="% of latency"):
        rough = solve(latency, importance, memory_mb=0.15)
    assert 0 < rough.epsilon < 1 and len(rough) < len(exact)
    for time, score in zip(exact.latency_ms, exact.importance, strict=True):
        assert rough.at(time * (1 + rough.epsilon) + 1e-9).importance >= score - 1e-12
    with pytest.raises(DpcompressError, match="memory"):
        solve(latency, importance, memory_mb=0.001)


def test_explain_states_what_the_opposite_costs() -> None:
    latency, importance = tables(*THREE)
    frontier = solve(latency, importance)
    plan = frontier.at(4.0)
    said = {(d.kind, d.number): d for d in explain(plan, frontier.problem)}
    assert said["activation", 1].kept is False
    assert said["activation", 1].importance is None  # it takes 6 ms
    activation = said["activation", 2]
    assert activation.kept and activation.importance == 0.5
    assert activation.latency_ms == 0.0
    assert said["layer", 3].kept and said["layer", 3].importance is None
    assert not said["layer", 1].kept
    said = {(d.kind, d.number): d for d in explain(frontier.at(10.0), frontier.problem)}
    layer = {number: d for (kind, number), d in said.items() if kind == "layer"}
    assert (layer[1].importance, layer[1].latency_ms) == (0.5, -2.5)
    assert "stays alone: otherwise the importance is 0.5 lower" in str(layer[1])


def network() -> Blueprint:
    """Four 3x3 convolutions of 4 channels on 16x16; a max pooling after the second."""
    pad = ((1, 1), (1, 1))
    conv = ConvSpec(in_channels=4, out_channels=4, kernel=(3, 3), padding=pad)
    ops = [Op(name="x", kind="input", shape=(4, 16, 16))]
    layers = []
    for n in range(1, 5):
        size = 16 if n < 3 else 8
        shape = (4, size, size)
        ops.append(
            Op(name=f"c{n}", kind="conv", inputs=(len(ops) - 1,), shape=shape, conv=conv)
        )
        ops.append(
            Op(name=f"a{n}", kind="act", inputs=(len(ops) - 1,), shape=shape, act="relu")
        )
        layers.append(Layer(conv=len(ops) - 2, tail=(len(ops) - 1,), act=len(ops) - 1))
        if n == 2:
            pool = Op(
                name="pool",
                kind="opaque",
                inputs=(len(ops) - 1,),
                shape=(4, 8, 8),
                why="max pooling",
            )
            ops.append(pool)
    return Blueprint(
        input=(4, 16, 16),
        output=len(ops) - 1,
        ops=tuple(ops),
        layers=tuple(layers),
        chains=(Chain(entry=0, start=0, stop=2), Chain(entry=5, start=2, stop=4)),
    )


def network_tables(blueprint: Blueprint) -> tuple[LatencyTable, ImportanceTable]:
    spans = candidates(blueprint)
    return tables(
        {tuple(s): 1.0 for s in spans},
        {(*s, 1, 1): 1.0 - s.length**2 for s in spans},
        blueprint=blueprint.digest,
    )


def test_limits_from_the_blueprint() -> None:
    """A 3x3 convolution has 148 parameters, a 5x5 one 404."""
    blueprint = network()
    latency, importance = network_tables(blueprint)
    spans = candidates(blueprint)
    assert spans[next(s for s in spans if s.length == 2)].params == 404
    free = solve(latency, importance)
    assert free[0].spans == ((0, 2), (2, 4))
    small = solve(latency, importance, limits=[parameter_limit(blueprint, 4 * 148)])
    assert [len(plan.spans) for plan in small] == [4]
    # The first chain's convolutions have 256 pixels, the second's 64.
    macs = 144 * 256 * 2 + 400 * 64
    light = solve(latency, importance, limits=[mac_limit(blueprint, macs)])
    assert [plan.spans for plan in light][0] == ((0, 1), (1, 2), (2, 4))
    exact = solve(latency, importance, limits=[memory_limit(blueprint, 2 * 4 * 256)])
    assert len(exact) == len(free)
    with pytest.raises(InfeasibleBudget, match="activation memory of at most 2047"):
        solve(latency, importance, limits=[memory_limit(blueprint, 2047)])


def test_explain_gives_the_reason_of_illegal_merges() -> None:
    blueprint = network()
    latency, importance = network_tables(blueprint)
    frontier = solve(latency, importance)
    said = explain(frontier[-1], frontier.problem, blueprint)
    reason = next(d for d in said if (d.kind, d.number) == ("activation", 2))
    assert "(1, 3] cannot merge" in str(reason) and "max pooling" in str(reason)
    other = LatencyTable(latency.frame, {**latency.header, "blueprint": "other"})
    with pytest.raises(BadTable, match="blueprint"):
        problem = Problem.build(other, ImportanceTable(importance.frame))
        explain(frontier[-1], problem, blueprint)


def test_a_span_without_cost_is_not_available() -> None:
    latency, importance = tables(*THREE)
    known = [span for span in THREE[0] if span != (0, 2)]
    costs = {Key(i, j, "merge", b): 0.0 for i, j in known for b in (False, True)}
    frontier = solve(latency, importance, limits=[Limit("known spans", costs, np.inf)])
    assert all((0, 2) not in plan.spans for plan in frontier)
