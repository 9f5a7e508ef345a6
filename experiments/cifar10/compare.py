"""Accuracy against measured speed of several ways to make a network faster.

    python -m experiments.cifar10.compare experiments/cifar10/cpu.json \\
        --data cifar10:FOLDER --weights mobilenet_v2_cifar10.safetensors -o RUN

Every choice and every training is a job of its own, kept in a file of its own under RUN
that is named by a digest of all it depends on. Stop it at any time; the same command goes
on. `--only` does one part: latency and designs should have the machine to themselves.
Writes RUN/results.csv; `plot.py` draws it.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import time
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

from dpcompress.blueprint import Plan
from dpcompress.errors import UsageError
from dpcompress.files import digest, write_text
from dpcompress.pipeline.result import macs, parameters
from dpcompress.training import evaluate, state_digest
from experiments.cifar10.config import Config, read_config
from experiments.cifar10.context import INPUT, Context, Shape
from experiments.cifar10.methods import METHODS, SEEDED, SHAPES, Job

Row = dict[str, Any]
PARTS = ("latency", "importance", "designs", "train")


def kept(path: Path, make: Callable[[], Row]) -> Row:
    """What `path` holds, made if it is not there."""
    if not path.exists():
        write_text(path, json.dumps(make(), indent=1) + "\n")
    found: Row = json.loads(path.read_text())
    return found


def cells(config: Config) -> Iterator[tuple[str, float, int]]:
    """(method, speed-up, seed) of every job, the first seed of everything first."""
    seen = set()
    for seed, speedup, method in product(config.seeds, config.speedups, config.methods):
        if method not in METHODS:
            raise UsageError(
                f"There is no method {method!r}.", f"There are: {', '.join(METHODS)}."
            )
        cell = (method, 1.0 if METHODS[method][0] == "original" else speedup, seed)
        if cell not in seen:
            seen.add(cell)
            yield cell


def design(context: Context, name: str, speedup: float, seed: int) -> Row:
    """The shape whose measured speed-up comes nearest to the one asked for."""
    seed = seed if name in SEEDED else 0
    config = context.config
    if name == "original":
        return {"shape": None, "speedup": 1.0, "low": 1.0, "high": 1.0}

    def search() -> Row:
        share, tried = 1 / speedup, []
        for _ in range(config.tries):
            shape = SHAPES[name](context, share, seed)
            text = shape.model_dump(mode="json") if isinstance(shape, Plan) else shape
            if any(row["shape"] == text for row in tried):
                break
            found = context.speedup(shape)
            tried.append({"shape": text, "share": share, "speedup": found.median,
                          "low": found.low, "high": found.high})  # fmt: skip
            print(f"{name} {speedup:g}x: {found.median:.3f}x measured", flush=True)
            if abs(found.median / speedup - 1) <= config.tolerance:
                break
            share = min(share * found.median / speedup, 1.0)
        return min(tried, key=lambda row: abs(row["speedup"] / speedup - 1))

    key = digest([name, speedup, seed, context.latency.digest, config.metric,
                  config.alpha, config.scoring.model_dump()])  # fmt: skip
    return kept(context.folder / "designs" / f"{name}_{speedup:g}_{key}.json", search)


def cell(context: Context, method: str, speedup: float, seed: int) -> Row:
    """One row of the results."""
    name, train = METHODS[method]
    chosen = design(context, name, speedup, seed)
    shape: Shape = chosen["shape"]
    if isinstance(shape, dict):
        shape = Plan.model_validate(shape)
    key = digest([method, chosen["shape"], seed, context.config.recipe.model_dump(),
                  context.data.digest, state_digest(context.original)])  # fmt: skip

    def run() -> Row:
        print(f"{method}, {speedup:g}x, seed {seed}", flush=True)
        checkpoint = context.folder / "cells" / f"{key}.checkpoint"
        began = time.monotonic()
        network = train(Job(context, shape, seed, checkpoint))
        seconds = time.monotonic() - began
        test = evaluate(network, context.data.test)
        checkpoint.unlink(missing_ok=True)
        return {
            "key": key,
            "method": method,
            "budget": speedup,
            "seed": seed,
            "speedup": round(chosen["speedup"], 4),
            "speedup_low": round(chosen["low"], 4),
            "speedup_high": round(chosen["high"], 4),
            "accuracy": test.accuracy,
            "test_images": test.count,
            "train_seconds": round(seconds, 1),
            "parameters": parameters(network),
            "macs": macs(network, INPUT),
        }

    return kept(context.folder / "cells" / f"{key}.json", run)


def write_results(path: Path, rows: list[Row]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def compare(context: Context, parts: tuple[str, ...] = PARTS) -> list[Row]:
    """All cells of the config, or those steps of them that `parts` names."""
    jobs = list(cells(context.config))
    names = [METHODS[method][0] for method, _, _ in jobs]
    if "latency" in parts:
        _ = context.latency
    if "importance" in parts:
        for name in dict.fromkeys(names):
            if name.startswith("dp-"):
                context.importance(name.removeprefix("dp-"))
    if "designs" in parts:
        for name, (_, speedup, seed) in zip(names, jobs, strict=True):
            design(context, name, speedup, seed)
    rows: list[Row] = []
    if "train" in parts:
        for job in jobs:
            rows.append(cell(context, *job))
            write_results(context.folder / "results.csv", rows)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", type=Path)
    parser.add_argument("--data", required=True, help="cifar10:FOLDER")
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--only", choices=PARTS, action="append")
    options = parser.parse_args()
    config = read_config(options.config)
    context = Context(config, options.data, options.weights, options.output)
    for row in compare(context, tuple(options.only or PARTS)):
        print(f"{row['method']:36} {row['speedup']:.2f}x  {row['accuracy']:.2%}")


if __name__ == "__main__":
    main()
