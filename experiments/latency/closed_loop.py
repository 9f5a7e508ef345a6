"""From loose to tight budgets: does the closed loop meet each, how closely, after how
many networks? MobileNetV2-1.0 at 224×224, ONNX Runtime, batch 1.

    python -m experiments latency.closed_loop

Importances are synthetic: removing an activation costs an exponentially distributed
amount (seed 0), a span costs the sum of what it removes. Planned networks are measured
beside the original; afterwards each chosen network is measured once more, in sessions of
their own, which no choice depended on. Writes closed_loop.json. Cut off, it goes on where
it was.
"""

from __future__ import annotations

import platform
from typing import Any

import numpy as np
import onnxruntime
import pandas as pd

from dpcompress.blueprint import Blueprint, Plan, candidates
from dpcompress.latency import Store, bench
from dpcompress.pipeline.closed_loop import Loop, close_loop
from dpcompress.pipeline.trials import Trials
from dpcompress.pipeline.whole_networks import calibrate, merged_onnx
from dpcompress.runner import Ratio, Target, ratio
from dpcompress.solver import solve
from dpcompress.tables import ImportanceTable, LatencyTable
from experiments.latency.common import arguments, measured, network, prepared, write

# From 0, the original's time, to 1, the least that any plan is predicted to take.
TIGHTNESS = (0.1, 0.3, 0.5, 0.7, 0.9)


def importance(blueprint: Blueprint, seed: int = 0) -> ImportanceTable:
    """Minus the summed worth of the activations inside each candidate span."""
    rng = np.random.default_rng(seed)
    worth = rng.exponential(size=blueprint.depth + 1)
    rows = [
        {
            "start": start,
            "stop": stop,
            "act_start": int(start == 0 or blueprint.has_activation(start)),
            "act_stop": int(blueprint.has_activation(stop)),
            "importance": -sum(
                worth[p] for p in range(start + 1, stop) if blueprint.has_activation(p)
            ),
        }
        for start, stop in candidates(blueprint)
    ]
    header = {"blueprint": blueprint.digest, "input": "x".join(map(str, blueprint.input))}
    return ImportanceTable(pd.DataFrame(rows), header)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--engine", default="onnxruntime")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--name", default="closed_loop", help="of the files written")
    parser.add_argument("--tightness", type=float, nargs="+", default=TIGHTNESS)
    options = parser.parse_args()
    work, batch = options.work, options.batch
    made, _ = network(options.model, options.size)
    blueprint, original = prepared(work, options.model, options.size, batch)
    target = Target(options.engine, threads=options.threads, batch=batch)
    kept = work / f"{options.name}.csv"
    if not kept.exists():
        calibrate(measured(work, blueprint, original, target), made, blueprint).write(
            kept
        )
    table = LatencyTable.read(kept)
    whole_ms = table.e2e_ms
    assert whole_ms is not None
    frontier = solve(table, importance(blueprint))
    least = frontier.latency_ms[0] / whole_ms
    print(f"{len(frontier)} plans, the fastest takes {least:.0%} of the original's time")
    runs = []
    for tightness in options.tightness:
        share = 1 - tightness * (1 - least)
        with Store(work / "measurements.sqlite") as store:
            trials = Trials(made, original, table, store)
            plan, loop = close_loop(frontier, share * whole_ms, trials)
        networks = {"original": original, "plan": merged_onnx(made, plan, batch)}
        times = bench(networks, target)
        again = ratio(times["plan"], times["original"])
        now_ms = times["original"].median_ms
        runs.append({"budget": share, **row(plan, loop, again, whole_ms, now_ms)})
        print(runs[-1], flush=True)
    about = {
        "model": options.model,
        "size": options.size,
        "batch": batch,
        "engine": f"{options.engine} {table.header['engine_version']}",
        "device": table.header["device"],
        "threads": table.header["threads"],
        "python": platform.python_version(),
        "onnxruntime": onnxruntime.__version__,
        "plans": len(frontier),
        "unit": "time of the original, measured in the same rounds",
    }
    write(options.output / f"{options.name}.json", {"about": about, "budgets": runs})


def row(
    plan: Plan, loop: Loop, again: Ratio, then_ms: float, now_ms: float
) -> dict[str, Any]:
    """One budget's line. then_ms, now_ms: what the original took for the table, and in
    the sessions of `again`."""
    first = loop.trials[0]
    return {
        "convolutions": len(plan.spans),
        "first_prediction": first.predicted_ms / then_ms,
        "first_measured": first.measured_ms / then_ms,
        "networks": len(loop.trials),
        "measured": loop.measured_ms / then_ms,
        "below": loop.below,
        "settled": loop.settled,
        "why": loop.why,
        "measured_again": again.median,
        "again_low": again.low,
        "again_high": again.high,
        "original_ms_then": then_ms,
        "original_ms_now": now_ms,
    }


if __name__ == "__main__":
    main()
