"""The verb ``solve``: files in, a plan, a frontier and a picture out."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from dpcompress.blueprint import Plan
from dpcompress.tables import ImportanceTable, LatencyTable
from experiments.solver.synthetic import chain


@pytest.fixture
def tables(tmp_path: Path) -> list[object]:
    latency, importance = chain(12, 4, 0)
    latency.write(tmp_path / "T.csv")
    importance.write(tmp_path / "I.csv")
    return ["--latency", tmp_path / "T.csv", "--importance", tmp_path / "I.csv"]


def test_all_files_agree(
    run: Callable[..., Any], tables: list[object], tmp_path: Path
) -> None:
    plan, frontier, plot = (tmp_path / name for name in ("p.json", "f.csv", "f.png"))
    asked = ["--budget", "80%", "-o", plan, "--frontier", frontier, "--plot", plot]
    done = run("solve", *tables, *asked, "--json")
    assert done.code == 0
    chosen = Plan.from_json(plan.read_bytes())
    assert done.json["plan"] == chosen.model_dump(mode="json")
    assert chosen.budget_ms == pytest.approx(0.8 * done.json["original_ms"])
    assert chosen.predicted_ms <= chosen.budget_ms
    rows = frontier.read_text().splitlines()
    assert len(rows) == 1 + done.json["plans"]
    assert any(row.startswith(f"{chosen.predicted_ms},") for row in rows)
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_forced_decisions_and_a_second_table(
    run: Callable[..., Any], tables: list[object]
) -> None:
    asked = ["--speedup", "1.1", "--keep", "3,5-6", "--merge", "8-9", "--drop", "10"]
    limit = ["--also", f"{tables[1]}=85%"]
    plan = run("solve", *tables, *asked, *limit, "--json").json["plan"]
    assert {3, 5, 6} <= set(plan["activations"]) and 10 not in plan["activations"]
    assert 8 not in [choice["stop"] for choice in plan["choices"]]
    free = run("solve", *tables, "--speedup", "1.1", "--json").json["plan"]
    assert free["importance"] > plan["importance"]


def test_it_says_what_it_chose_and_why(
    run: Callable[..., Any], tables: list[object]
) -> None:
    done = run("solve", *tables, "--speedup", "1.2", "--explain")
    assert done.code == 0
    assert "best plans" in done.out and "merged layers" in done.out
    assert (
        sum(line.startswith(("activation ", "layer ")) for line in done.out.splitlines())
        == 24
    )


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        (["--budget", "0.01"], 3),
        (["--budget", "soon"], 2),
        (["--budget", "80%", "--speedup", "2"], 2),
        (["-o", "plan.json"], 2),
        ([], 2),
        (["--budget", "80%", "--keep", "x"], 2),
        (["--budget", "80%", "--max-params", "5"], 2),
        (["--budget", "80%", "--blueprint", "absent.json"], 4),
        (["--budget", "80%", "--also", "absent.csv=5"], 4),
    ],
)
def test_exit_codes(
    run: Callable[..., Any], tables: list[object], asked: list[str], code: int
) -> None:
    done = run("solve", *tables, *asked)
    assert done.code == code
    assert "Traceback" not in done.err and "error: " in done.err


@pytest.mark.slow
def test_measured_plans(
    run: Callable[..., Any], net: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every activation is worth 1, so the best plan keeps all that fits."""
    monkeypatch.setenv("DPCOMPRESS_STORE", str(tmp_path / "kept.sqlite"))
    latency, importance = tmp_path / "T.csv", tmp_path / "I.csv"
    made = run(
        *("profile", net, "--input", "3x32x32", "--model-args", "width=16"),
        *("--batch", 8, "--threads", 1, "-o", latency),
    )
    assert made.code == 0
    times = LatencyTable.read(latency)
    spans = sorted(set(zip(times.frame["start"], times.frame["stop"], strict=True)))
    scores = pd.DataFrame(spans, columns=["start", "stop"])
    worth = 1.0 + scores["start"] - scores["stop"]
    scores = scores.assign(act_start=1, act_stop=1, importance=worth)
    header = {"blueprint": times.blueprint, "input": "3x32x32"}
    ImportanceTable(scores, header).write(importance)

    def solve(*asked: object) -> Any:
        plan = ("-o", tmp_path / "p.json", "--model-args", "width=16")
        tables = ("--latency", latency, "--importance", importance)
        return run("solve", *tables, *plan, "--measure", net, *asked)

    done = solve("--budget", "300%", "--json")
    assert done.code == 0 and done.json["loop"]["settled"]
    plan = Plan.from_json((tmp_path / "p.json").read_bytes())
    assert len(plan.spans) == 3 and len(done.json["loop"]["trials"]) == 1
    # The original beside itself takes what the table says.
    assert plan.measured_ms == pytest.approx(times.e2e_ms, rel=0.15)
    assert plan.measured_ms == done.json["loop"]["measured_ms"] < plan.budget_ms
    again = solve("--budget", "300%")
    assert "1 planned network measured" in again.out
    assert Plan.from_json((tmp_path / "p.json").read_bytes()) == plan

    least = solve("--budget", "0.001ms")
    assert least.code == 3 and "was measured to take" in least.err
    for asked, code in ((["--explain", "--budget", "90%"], 2), ([], 2)):
        assert solve(*asked).code == code
