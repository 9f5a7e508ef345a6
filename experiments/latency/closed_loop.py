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

import numpy as np
import onnxruntime
import pandas as pd

from dpcompress.blueprint import Blueprint, candidates
from dpcompress.latency import bench, profile
from dpcompress.pipeline.closed_loop import close_loop
from dpcompress.pipeline.trials import Trials
from dpcompress.pipeline.whole_networks import calibrate, merged_onnx
from dpcompress.runner import Target, ratio
from dpcompress.solver import solve
from dpcompress.tables import ImportanceTable, LatencyTable
from experiments.latency import mobilenet

TIGHTNESS = (0.1, 0.3, 0.5, 0.7, 0.9)
"""From 0, the original's time, to 1, the least that any plan is predicted to take."""


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
    parser = mobilenet.arguments(__doc__)
    parser.add_argument("--engine", default="onnxruntime")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--name", default="closed_loop", help="of the files written")
    parser.add_argument("--tightness", type=float, nargs="+", default=TIGHTNESS)
    options = parser.parse_args()
    made, _ = mobilenet.network(options.model, options.size)
    blueprint, original = mobilenet.prepared(
        options.work, options.model, options.size, options.batch
    )
    target = Target(options.engine, threads=options.threads, batch=options.batch)
    kept = options.work / f"{options.name}.csv"
    if not kept.exists():
        with mobilenet.store(options.work) as measurements:
            table = profile(
                blueprint,
                original=original,
                target=target,
                store=measurements,
            )
        calibrate(table, made, blueprint).write(kept)
    table = LatencyTable.read(kept)
    frontier = solve(table, importance(blueprint))
    least = frontier.latency_ms[0] / table.e2e_ms
    print(f"{len(frontier)} plans, the fastest takes {least:.0%} of the original's time")
    runs = []
    for tightness in options.tightness:
        share = 1 - tightness * (1 - least)
        with mobilenet.store(options.work) as measurements:
            trials = Trials(made, original, table, measurements)
            plan, loop = close_loop(frontier, share * table.e2e_ms, trials)
        networks = {"original": original, "plan": merged_onnx(made, plan, options.batch)}
        times = bench(networks, target)
        again = ratio(times["plan"], times["original"])
        runs.append(
            {
                "budget": share,
                "convolutions": len(plan.spans),
                "first_prediction": loop.trials[0].predicted_ms / table.e2e_ms,
                "first_measured": loop.trials[0].measured_ms / table.e2e_ms,
                "networks": len(loop.trials),
                "measured": loop.measured_ms / table.e2e_ms,
                "below": loop.below,
                "settled": loop.settled,
                "why": loop.why,
                "measured_again": again.median,
                "again_low": again.low,
                "again_high": again.high,
                "original_ms_then": table.e2e_ms,
                "original_ms_now": times["original"].median_ms,
            }
        )
        print(runs[-1], flush=True)
    result = {
        "about": {
            "model": options.model,
            "size": options.size,
            "batch": options.batch,
            "engine": f"{options.engine} {table.header['engine_version']}",
            "device": table.header["device"],
            "threads": table.header["threads"],
            "python": platform.python_version(),
            "onnxruntime": onnxruntime.__version__,
            "plans": len(frontier),
            "unit": "time of the original, measured in the same rounds",
        },
        "budgets": runs,
    }
    mobilenet.write(options.output / f"{options.name}.json", result)


if __name__ == "__main__":
    main()
