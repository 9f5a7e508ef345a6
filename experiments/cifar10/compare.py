"""Accuracy against measured speed of several ways to make a network faster.

    python -m experiments cifar10.compare experiments/cifar10/cpu.json \\
        --data cifar10:FOLDER --weights mobilenet_v2_cifar10.safetensors -o RUN

Every choice and every training is a job of its own, kept in a file of its own under RUN
that is named by a digest of all it depends on. Stop it at any time; the same command goes
on. `--only` does one part: latency and designs should have the machine to themselves.
Trainings run on one thread each, `--workers` of them at a time. Writes RUN/results.csv,
which `plot.py` draws, and RUN/differences.csv.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import joblib

from dpcompress.errors import InfeasibleBudget, UsageError
from dpcompress.files import digest, write_text
from dpcompress.pipeline.result import macs, parameters
from dpcompress.training import deterministic, predict_logits, state_digest
from experiments.cifar10.config import Config, read_config
from experiments.cifar10.context import INPUT, SHAPE, Context, Shape
from experiments.cifar10.methods import METHODS, PREPARED, SEEDED, SHAPES, Job
from experiments.cifar10.results import differences, packed, results

Row = dict[str, Any]
Cell = tuple[str, float, int]
"""(method, speed-up, seed)."""
PARTS = ("latency", "importance", "designs", "train")


def kept(path: Path, make: Callable[[], Row]) -> Row:
    """What `path` holds, made if it is not there."""
    if not path.exists():
        write_text(path, json.dumps(make(), indent=1) + "\n")
    found: Row = json.loads(path.read_text())
    return found


def cells(config: Config) -> Iterator[Cell]:
    """Every job, the first seed of everything first, then in the config's order."""
    for method in config.methods:
        if method not in METHODS:
            raise UsageError(
                f"There is no method {method!r}.", f"There are: {', '.join(METHODS)}."
            )
    for seed in range(max(config.methods.values(), default=0)):
        for method, seeds in config.methods.items():
            budgets = (1.0,) if METHODS[method][0] == "original" else config.speedups
            if seed < seeds:
                yield from ((method, speedup, seed) for speedup in budgets)


def speed(context: Context, shape: Shape) -> Row:
    """Measured speed-up of networks of this shape."""
    config = context.config
    key = digest([SHAPE.dump_python(shape, mode="json"), config.engine, config.batch,
                  config.threads, state_digest(context.original)])  # fmt: skip

    def measured() -> Row:
        found = context.speedup(shape)
        return {"speedup": found.median, "low": found.low, "high": found.high}

    return kept(context.folder / "speeds" / f"{key}.json", measured)


def next_share(tried: list[Row], speedup: float) -> float:
    """What to ask for next: between the nearest slower and faster ones, if there are
    both, else in proportion to the last one."""
    slower = [row for row in tried if row["speedup"] < speedup]
    faster = [row for row in tried if row["speedup"] >= speedup]
    if not slower or not faster:
        last = tried[-1]
        return min(last["share"] * last["speedup"] / speedup, 1.0)
    a = max(slower, key=lambda row: row["speedup"])
    b = min(faster, key=lambda row: row["speedup"])
    way = math.log(speedup / a["speedup"]) / math.log(b["speedup"] / a["speedup"])
    return float(a["share"] ** (1 - way) * b["share"] ** way)


def design(context: Context, name: str, speedup: float, seed: int) -> Row:
    """The shape whose measured speed-up comes nearest to the one asked for."""
    seed = seed if name in SEEDED else 0
    config = context.config
    if name == "original":
        return {"shape": None, "speedup": 1.0, "low": 1.0, "high": 1.0}

    def search() -> Row:
        share, tried = 1 / speedup, []
        for _ in range(config.tries):
            try:
                shape = SHAPES[name](context, share, seed)
            except InfeasibleBudget:
                if not tried:
                    raise
                break
            text = SHAPE.dump_python(shape, mode="json")
            if any(row["shape"] == text for row in tried):
                break
            tried.append({"shape": text, "share": share, **speed(context, shape)})
            print(f"{name} {speedup:g}x: {tried[-1]['speedup']:.3f}x", flush=True)
            if abs(tried[-1]["speedup"] / speedup - 1) <= config.tolerance:
                break
            share = next_share(tried, speedup)
        return min(tried, key=lambda row: abs(row["speedup"] / speedup - 1))

    key = digest([name, speedup, seed, context.latency.digest, config.metric,
                  config.alpha, config.scoring.model_dump(), config.renew,
                  config.free_activations, config.search.model_dump(),
                  context.data.digest])  # fmt: skip
    return kept(context.folder / "designs" / f"{name}_{speedup:g}_{key}.json", search)


def cell(context: Context, method: str, speedup: float, seed: int) -> Row:
    """One row of the results, on one thread."""
    name, train = METHODS[method]
    chosen = design(context, name, speedup, seed)
    shape = SHAPE.validate_python(chosen["shape"])
    key = digest([method, chosen["shape"], seed, context.config.recipe.model_dump(),
                  context.data.digest, state_digest(context.original)])  # fmt: skip

    def run() -> Row:
        print(f"{method}, {speedup:g}x, seed {seed}", flush=True)
        checkpoint = context.folder / "cells" / f"{key}.checkpoint"
        began = time.monotonic()
        network = train(Job(context, shape, seed, checkpoint))
        seconds = time.monotonic() - began
        test = context.data.test
        right = predict_logits(network, test).argmax(1) == test.labels
        checkpoint.unlink(missing_ok=True)
        return {
            "method": method,
            "budget": speedup,
            "seed": seed,
            "speedup": round(chosen["speedup"], 4),
            "speedup_low": round(chosen["low"], 4),
            "speedup_high": round(chosen["high"], 4),
            "accuracy": right.double().mean().item(),
            "test_images": len(test),
            "train_seconds": round(seconds, 1),
            "parameters": parameters(network),
            "macs": macs(network, INPUT),
            "right": packed(right),
        }

    with deterministic(threads=1):
        return kept(context.folder / "cells" / f"{key}.json", run)


def train(context: Context, jobs: list[Cell]) -> list[Row]:
    """The rows of `jobs`, in their order; all that are there are written as they come."""
    several = context.workers > 1
    rows: dict[Cell, Row] = {}
    with joblib.parallel_config(
        "loky" if several else "sequential",
        # Images in memory reach the workers as one memory-mapped file.
        **({"inner_max_num_threads": 1, "mmap_mode": "c"} if several else {}),
    ):
        parallel = joblib.Parallel(
            n_jobs=context.workers, return_as="generator_unordered"
        )
        for row in parallel(joblib.delayed(cell)(context, *job) for job in jobs):
            rows[row["method"], row["budget"], row["seed"]] = row
            found = [rows[job] for job in jobs if job in rows]
            write_text(context.folder / "results.csv", results(found))
            write_text(context.folder / "differences.csv", differences(found))
    return found


def compare(context: Context, parts: tuple[str, ...] = PARTS) -> list[Row]:
    """All cells of the config, or those steps of them that `parts` names."""
    jobs = list(cells(context.config))
    names = [METHODS[method][0] for method, _, _ in jobs]
    if "latency" in parts:
        _ = context.latency
    if "importance" in parts:
        for name in dict.fromkeys(names):
            if name in PREPARED:
                PREPARED[name](context)
    if "designs" in parts:
        for name, (_, speedup, seed) in zip(names, jobs, strict=True):
            design(context, name, speedup, seed)
    return train(context, jobs) if "train" in parts else []


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", type=Path)
    parser.add_argument("--data", required=True, help="cifar10:FOLDER")
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--only", choices=PARTS, action="append")
    parser.add_argument("--workers", type=int, default=1, help="trainings at a time")
    options = parser.parse_args()
    context = Context(
        *(read_config(options.config), options.data, options.weights, options.output),
        workers=options.workers,
    )
    for row in compare(context, tuple(options.only or PARTS)):
        print(f"{row['method']:36} {row['speedup']:.2f}x  {row['accuracy']:.2%}")


if __name__ == "__main__":
    main()
