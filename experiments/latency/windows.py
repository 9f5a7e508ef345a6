"""How long must a table be timed until another one agrees? Keeps every window of every
graph, three sessions each, and nothing is finished early, taken off or repeated.

    python experiments/latency/windows.py time first
    python experiments/latency/windows.py time second
    python experiments/latency/windows.py compare

Prints how far the rows of the two are apart (median, 95th percentile, common ratio) when
made of what the first seconds hold, with all sessions and with one.
"""

import random
import time
from collections import defaultdict
from pathlib import Path
from statistics import fmean, median

import mobilenet
import numpy as np
import pandas as pd

from dpcompress.latency.profile import build_table
from dpcompress.latency.workload import SpanOps, jobs, network_name, span_ops
from dpcompress.runner import Measurement, Target
from dpcompress.runner.core_wait import CoreWait
from dpcompress.runner.session_timer import SessionTimer

SESSIONS = 3
PACE_MS = 1.0
"""Of each graph in a round; a slower one takes part now and then."""


def keep(path: Path, ops: SpanOps, onnx: bytes, seconds: float) -> None:
    engine, wait = Target().open(), CoreWait()
    timers = {}
    for subject, job in jobs(ops, onnx, 1, most_copies=engine.most_copies).items():
        graph = job.graph()
        timers[subject] = [
            SessionTimer(engine.load(graph), 0.0, wait, cold=True)
            for _ in range(SESSIONS)
        ]
    due = {subject: random.random() for subject in timers}
    rows, began = [], time.perf_counter()
    while time.perf_counter() - began < seconds:
        turn = []
        for subject, own in timers.items():
            due[subject] += min(PACE_MS / own[0].fastest_ms, 1.0)
            if due[subject] >= 1:
                due[subject] -= 1
                turn.append(subject)
        for subject in random.sample(turn, len(turn)):
            own = timers[subject]
            own.append(own.pop(0))
            sample = own[-1].sample()
            at = time.perf_counter() - began
            rows.append((subject, id(own[-1]), at, sample.ms, sample.waited))
    columns = ["subject", "session", "at", "ms", "waited"]
    pd.DataFrame(rows, columns=columns).to_csv(path, index=False)
    print(path, len(rows), "windows")


def rows(path: Path, blueprint, ops: SpanOps, onnx: bytes, first: float, sessions: int):
    windows = pd.read_csv(path)
    chosen = windows.query("at < @first and waited <= 0.01")
    late = windows[~windows["subject"].isin(chosen["subject"])]
    windows = pd.concat([chosen, late.groupby("subject").head(1)])
    medians = defaultdict(list)
    for (subject, _), group in windows.groupby(["subject", "session"], sort=False):
        medians[subject].append(median(group["ms"]))
    times = {s: Measurement.of([fmean(m[:sessions])]) for s, m in medians.items()}
    engine = Target().open()
    table = build_table(
        blueprint,
        ops,
        times,
        {},
        network_name(onnx),
        engine.identity,
        1,
        most_copies=engine.most_copies,
    )
    return table.frame["latency_ms"].to_numpy()


def main() -> None:
    parser = mobilenet.arguments(__doc__)
    parser.add_argument("step", choices=["time", "compare"])
    parser.add_argument("name", nargs="?", default="first")
    parser.add_argument("--seconds", type=float, default=85)
    options = parser.parse_args()
    blueprint, onnx = mobilenet.prepared(options.work, options.model, options.size, 1)
    ops = span_ops(blueprint)
    if options.step == "time":
        file = options.work / f"windows_{options.name}.csv"
        return keep(file, ops, onnx, options.seconds)
    files = [options.work / f"windows_{name}.csv" for name in ("first", "second")]
    for part in (0.25, 0.5, 0.75, 1.0):
        for sessions in (1, SESSIONS):
            seconds = part * options.seconds
            a, b = (rows(f, blueprint, ops, onnx, seconds, sessions) for f in files)
            apart = np.quantile(
                np.abs(a - b) / np.maximum((a + b) / 2, 1e-9), (0.5, 0.95)
            )
            ratio = np.median(b / np.maximum(a, 1e-9))
            print(f"{seconds:.0f} s, {sessions} sessions: {apart}, ratio {ratio:.4f}")


if __name__ == "__main__":
    main()
