"""Tables made one after another: do they agree, and what do they cost? On a calm machine,
and while another process loads one core for a third of the time.

    python -m experiments latency.repeat make first
    python -m experiments latency.repeat make second
    python -m experiments latency.repeat make third --loaded
    python -m experiments latency.repeat make fourth --loaded
    python -m experiments latency.repeat compare

Each table has a store of its own. Writes repeat.json: relative differences of rows
between neighbours; seconds per table, of its runs alone, and of the published protocol's
(3,000 per span), both computed from the same times; and what the same network with 10
classes measures anew.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from dpcompress.latency import Store, profile
from dpcompress.runner import Target
from dpcompress.tables import LatencyTable
from experiments.latency.common import arguments, prepared, write

Row = dict[str, Any]
PUBLISHED_RUNS = 3000
LOAD = """
import time
while True:
    began = time.perf_counter()
    while time.perf_counter() - began < 0.1:
        pass
    time.sleep(0.2)
"""


@contextmanager
def load(wanted: bool) -> Iterator[None]:
    process = subprocess.Popen([sys.executable, "-c", LOAD]) if wanted else None
    try:
        yield
    finally:
        if process:
            process.kill()
            process.wait()


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("step", choices=["make", "compare"])
    parser.add_argument("name", nargs="?", default="first")
    parser.add_argument("--loaded", action="store_true")
    parser.add_argument("--engine", default="onnxruntime")
    parser.add_argument("--batch", type=int, default=1)
    options = parser.parse_args()
    folder = options.work / f"repeat_{options.engine}_batch{options.batch}"
    about = folder / "about.json"
    found = json.loads(about.read_text()) if about.exists() else {}
    if options.step == "make":
        found[options.name] = make(options, folder)
        return write(about, found)
    rows = {}
    for name, made in found.items():
        table = LatencyTable.read(folder / f"{name}.csv")
        rows[name] = table.frame["latency_ms"].to_numpy()
        made |= {key: float(table.header[key]) for key in ("e2e_ms", "single_layers_ms")}
        made |= cost(rows[name], folder / f"{name}.sqlite")
    pairs = {f"{a}, {b}": apart(rows[a], rows[b]) for a, b in pairwise(found)}
    write(options.output / "repeat.json", {"tables": found, "pairs": pairs})


def make(options: argparse.Namespace, folder: Path) -> Row:
    """Measure one table, and what the network with 10 classes needs beyond it."""
    store = Store(folder / f"{options.name}.sqlite")
    target = Target(options.engine, threads=options.threads, batch=options.batch)
    resumed, seconds = len(store) > 0, {}
    for classes in (1000, 10):
        blueprint, onnx = prepared(
            options.work, options.model, options.size, options.batch, classes
        )
        known, began = {row["subject"] for row in store.rows()}, time.perf_counter()
        with load(options.loaded):
            table = profile(blueprint, original=onnx, target=target, store=store)
        seconds[classes] = round(time.perf_counter() - began, 1)
        if classes == 1000:
            table.write(folder / f"{options.name}.csv")
    new = sorted({row["subject"] for row in store.rows()} - known)
    return {
        "loaded": options.loaded,
        "seconds": None if resumed else seconds[1000],
        "graphs": len(known),
        "seconds_with_10_classes": seconds[10],
        "measured_anew_with_10_classes": [subject.split()[0] for subject in new],
    }


def cost(latency_ms: np.ndarray, kept: Path) -> Row:
    """Seconds of the runs that made a table, and of as many as were published."""
    published = PUBLISHED_RUNS * float(latency_ms.sum()) / 1e3
    with Store(kept) as store:
        runs = sum(
            (row["samples"] + row["disturbed"]) * row["median_ms"] / 1e3
            for row in store.rows()
        )
    return {
        "published_protocol_seconds": round(published, 1),
        "runs_seconds": round(float(runs), 1),
        "times_cheaper": round(published / float(runs), 1),
    }


def apart(a: np.ndarray, b: np.ndarray) -> Row:
    """How far the rows of two tables are from each other."""
    differences = np.abs(a - b) / np.maximum((a + b) / 2, 1e-9)
    median, p95 = np.quantile(differences, (0.5, 0.95))
    return {
        "rows": len(a),
        "median_difference": round(float(median), 4),
        "p95_difference": round(float(p95), 4),
        "median_ratio": round(float(np.median(b / np.maximum(a, 1e-9))), 4),
    }


if __name__ == "__main__":
    main()
