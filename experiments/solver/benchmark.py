"""Times the solver and compares it with a floored time grid.

    python -m experiments solver.benchmark TABLE.csv OUT

TABLE.csv is the published MobileNetV2-1.0 latency table; writes results.json,
floored_grid.csv, growth.csv and growth.png into OUT.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from dpcompress.solver import Frontier, fastest, latency_limit, solve
from dpcompress.tables import ImportanceTable, LatencyTable
from experiments.solver.floored_grid import floored_plan
from experiments.solver.synthetic import chain, importance_for

BUDGETS = (25.0, 22.1, 20.0, 18.0)
PRECISIONS = (20, 100)
SEEDS = range(5)
DEPTHS = (25, 50, 100, 200, 400)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("table", type=Path, metavar="TABLE.csv")
    parser.add_argument("out", type=Path, metavar="OUT")
    options = parser.parse_args()
    benchmark(options.table, options.out)


def benchmark(table: Path, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    latency = LatencyTable.read(table)
    results: dict[str, Any] = {"machine": machine()}

    def record(name: str, value: Any) -> None:
        results[name] = value
        print(name, json.dumps(value), flush=True)
        (out / "results.json").write_text(json.dumps(results, indent=1) + "\n")

    record("mobilenet_v2_frontier", mobilenet(latency))
    record("mobilenet_v2_two_latencies", two_latencies(latency))
    pd.DataFrame(floored(latency)).to_csv(
        out / "floored_grid.csv", index=False, lineterminator="\n"
    )
    record("positions_200_exact", [timed(*chain(200, 16, seed)) for seed in SEEDS])
    growth = pd.DataFrame(
        {"positions": depth, "seed": seed, **timed(*chain(depth, 16, seed))}
        for depth in DEPTHS
        for seed in SEEDS[:3]
    )
    growth.to_csv(out / "growth.csv", index=False, lineterminator="\n")
    record("growth_exponents", draw(growth, out / "growth.png"))
    record(
        "positions_1000_epsilon_0.001",
        [timed(*chain(1000, 16, seed), epsilon=1e-3) for seed in SEEDS[:2]],
    )
    record("positions_1000_exact", timed(*chain(1000, 16, 0)))


def machine() -> dict[str, Any]:
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        models = [x for x in info.read_text().splitlines() if x.startswith("model name")]
        cpu = f"{models[0].partition(':')[2].strip()}, {len(models)} cores"
    return {
        "cpu": cpu,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "pandas": pd.__version__,
        "date": time.strftime("%Y-%m-%d"),
    }


def timed(
    latency: LatencyTable, importance: ImportanceTable, epsilon: float = 0.0
) -> dict[str, Any]:
    started, began = time.perf_counter(), time.process_time()
    frontier = solve(latency, importance, epsilon=epsilon)
    return {
        "wall_s": round(time.perf_counter() - started, 3),
        "cpu_s": round(time.process_time() - began, 3),
        "plans": len(frontier),
        "labels": frontier.labels,
        "epsilon": frontier.epsilon,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def median_ms(work: Callable[[], object], repeats: int = 31) -> dict[str, Any]:
    times, busy = [], []
    for _ in range(repeats):
        began, cpu = time.perf_counter(), time.process_time()
        work()
        times.append(1000 * (time.perf_counter() - began))
        busy.append(1000 * (time.process_time() - cpu))
    quartiles = statistics.quantiles(times, n=4)
    return {
        "median_ms": round(quartiles[1], 3),
        "cpu_median_ms": round(statistics.median(busy), 3),
        "quartiles_ms": [round(quartiles[0], 3), round(quartiles[2], 3)],
        "least_ms": round(min(times), 3),
    }


def mobilenet(latency: LatencyTable) -> list[dict[str, Any]]:
    found = []
    for seed in SEEDS:
        importance = importance_for(latency, seed)
        plans = len(solve(latency, importance))
        spent = median_ms(lambda scores=importance: solve(latency, scores))
        found.append({"seed": seed, "plans": plans, **spent})
    return found


def two_latencies(latency: LatencyTable) -> list[dict[str, Any]]:
    """A second engine on which every span is 0.5 to 1.5 times as fast, at random."""
    found = []
    for seed in SEEDS:
        importance = importance_for(latency, seed)
        factor = np.random.default_rng(seed).uniform(0.5, 1.5, len(latency.frame))
        times = latency.frame["latency_ms"] * factor
        second = LatencyTable(latency.frame.assign(latency_ms=times), latency.header)
        for share in (0.3, 0.5, 0.7, 0.9):
            budget = share * float(second.original_ms or 0)
            limits = [latency_limit("second engine", second, budget)]

            def work(
                importance: ImportanceTable = importance, limits: Any = limits
            ) -> Frontier:
                return solve(latency, importance, limits=limits)

            plans = len(work())
            spent = median_ms(work, 5)
            found.append({"seed": seed, "share": share, "plans": plans, **spent})
    return found


def floored(latency: LatencyTable) -> list[dict[str, Any]]:
    t_opt, found = fastest(latency), []
    for seed in SEEDS[:2]:
        importance = importance_for(latency, seed)
        frontier = solve(latency, importance)
        exact_ms = median_ms(lambda scores=importance: solve(latency, scores), 11)
        for budget in BUDGETS:
            plan = frontier.at(budget)
            for precision in PRECISIONS:
                work = partial(floored_plan, t_opt, importance, budget, precision)
                took, score = work()
                floored_ms = median_ms(work, 11)
                honest, _ = within_budget(frontier, t_opt, importance, budget, precision)
                found.append(
                    {
                        "seed": seed,
                        "budget_ms": budget,
                        "precision": precision,
                        "exact_ms": round(plan.predicted_ms or 0.0, 4),
                        "exact_importance": round(plan.importance or 0.0, 6),
                        "floored_ms": round(took, 4),
                        "floored_importance": round(score, 6),
                        "over_budget_percent": round(100 * max(0, took / budget - 1), 3),
                        "importance_lost_if_kept_honest": honest,
                        "floored_cpu_ms_one_budget": floored_ms["cpu_median_ms"],
                        "exact_cpu_ms_all_budgets": exact_ms["cpu_median_ms"],
                    }
                )
    return found


def within_budget(
    frontier: Frontier,
    t_opt: Any,
    importance: ImportanceTable,
    budget: float,
    precision: int,
) -> tuple[float | None, float]:
    """What the floored grid loses when its budget is lowered, in steps of 0.5 %, until
    the plan really fits: the importance, and the budget that had to be asked for."""
    asked = budget
    exact = frontier.at(budget).importance
    assert exact is not None
    while asked > budget / 2:
        took, score = floored_plan(t_opt, importance, asked, precision)
        if took <= budget:
            return round(exact - score, 6), asked
        asked -= budget * 0.005
    return None, asked


def draw(growth: pd.DataFrame, path: Path) -> dict[str, float]:
    """Plot time and labels against positions; returns the fitted exponents."""
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    exponents = {}
    for axes, column, title in zip(
        figure.subplots(1, 2), ("cpu_s", "labels"), ("seconds", "labels"), strict=True
    ):
        x, y = np.log(growth["positions"]), np.log(growth[column])
        slope, offset = np.polyfit(x, y, 1)
        exponents[column] = round(float(slope), 2)
        line = np.array(sorted(set(growth["positions"])))
        axes.loglog(growth["positions"], growth[column], "o", color="#1b6ca8", ms=4)
        axes.loglog(line, np.exp(offset) * line**slope, color="#888", lw=1)
        axes.set_xticks(line, map(str, line))
        axes.minorticks_off()
        axes.set_xlabel("positions (spans of up to 16 layers, all flags)")
        axes.set_title(f"{title}, exact frontier: exponent {slope:.2f}", fontsize=10)
        axes.grid(color="#ddd", linewidth=0.5, which="both")
    figure.savefig(path, dpi=130)
    return exponents


if __name__ == "__main__":
    main()
