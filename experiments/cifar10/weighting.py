"""DepthShrinker's search for equally many masks, with and without weighing their time.

    python -m experiments.cifar10.weighting experiments/cifar10/cpu.json \\
        --data cifar10:FOLDER --weights mobilenet_v2_cifar10.safetensors -o RUN OUTPUT

Takes the latency table of a comparison in RUN. Writes one line per granularity and
weight: what the table says of the plan, ms, and what is measured against the original.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

from dpcompress.depthshrinker import By, Merger, search
from dpcompress.files import write_text
from experiments.cifar10.config import read_config
from experiments.cifar10.context import Context

KEPT: dict[By, int] = {"activation": 20, "block": 9}
WEIGHTS = (0.0, 1.0, 5.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--data", required=True, help="cifar10:FOLDER")
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("-o", "--run", type=Path, required=True)
    options = parser.parse_args()
    context = Context(
        read_config(options.config), options.data, options.weights, options.run
    )
    merger = Merger(context.blueprint, context.latency)
    rows = []
    for by, keep in KEPT.items():
        for weight in WEIGHTS:
            found = search(
                *(context.original, context.blueprint, context.data, keep),
                by=by,
                recipe=context.config.search,
                latency=context.latency,
                latency_weight=weight,
                teacher=context.original,
            )
            plan = merger.plan(found.activations)
            measured = context.speedup(plan)
            rows.append(
                {
                    "by": by,
                    "masks": len(found.groups),
                    "on": len(found.on),
                    "latency_weight": weight,
                    "predicted_ms": round(plan.predicted_ms or 0.0, 4),
                    "speedup": round(measured.median, 4),
                    "speedup_low": round(measured.low, 4),
                    "speedup_high": round(measured.high, 4),
                }
            )
            write_text(options.output, pd.DataFrame(rows).to_csv(index=False))
            print(rows[-1], flush=True)


if __name__ == "__main__":
    main()
