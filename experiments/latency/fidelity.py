"""Do sums of a table predict whole networks? MobileNetV2-1.0 at 224×224: 45 networks,
evenly spread from the fastest to the original; 5 of them correct each table, the other 40
were used for nothing but this check.

    python -m experiments latency.fidelity table   # measures: leave the machine alone
    python -m experiments latency.fidelity build   # takes its time
    python -m experiments latency.fidelity check   # measures

The networks are drawn with the first table and are the same for all engines and batch
sizes. Tables and networks stay in --work, so that each step goes on where it was cut off.
Writes fidelity.json, and for each engine and batch the check and its picture.
"""

import argparse
import json
from pathlib import Path

from dpcompress.blueprint import Blueprint, Plan
from dpcompress.files import write_bytes, write_text
from dpcompress.latency import bench
from dpcompress.runner import Target
from dpcompress.solver import spread_plans
from dpcompress.tables import LatencyTable
from experiments.latency.common import arguments, measured, network, prepared, write

CORRECTING = 5


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("step", choices=["table", "build", "check"])
    parser.add_argument("--engines", nargs="+", default=["onnxruntime", "openvino"])
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8])
    parser.add_argument("--plans", type=int, default=40)
    options = parser.parse_args()
    if options.step == "build":
        return build_networks(options)
    for engine in options.engines:
        for batch in options.batches:
            target = Target(engine, threads=options.threads, batch=batch)
            path = options.work / f"{engine}_batch{batch}.csv"
            blueprint, onnx = prepared(options.work, options.model, options.size, batch)
            if options.step == "check":
                check(options.work, blueprint, LatencyTable.read(path), options.output)
            elif not path.exists():
                table = measured(options.work, blueprint, onnx, target)
                table.write(path)
                print(engine, batch, table.original_ms, table.fixed_ms, flush=True)
    if options.step == "check":
        write(options.output / "fidelity.json", summaries(options.output))


def build_networks(options: argparse.Namespace) -> None:
    from dpcompress.exporters import export
    from dpcompress.graph import build

    work = options.work
    made, blueprint = network(options.model, options.size)
    table = LatencyTable.read(work / "onnxruntime_batch1.csv")
    plans = spread_plans(blueprint, table, options.plans + CORRECTING)
    for i, plan in enumerate(plans):
        write_text(work / f"plan{i:02}.json", plan.to_json())
        files = {
            batch: work / f"plan{i:02}_batch{batch}.onnx" for batch in options.batches
        }
        if not all(file.exists() for file in files.values()):
            merged = build(made, plan)
            for batch, file in files.items():
                write_bytes(file, export(merged, blueprint.input, batch))
            print(i + 1, "of", len(plans), flush=True)


def check(work: Path, blueprint: Blueprint, table: LatencyTable, output: Path) -> None:
    from dpcompress.pipeline.whole_networks import judge, thorough, write_check

    engine, batch = table.target.engine, table.target.batch
    times = table.span_times(blueprint)
    plans = []
    files = sorted(work.glob(f"plan??_batch{batch}.onnx"))
    for file in files:
        path = work / f"{file.stem[:6]}.json"
        plan = Plan.from_json(path.read_bytes(), path)
        here_ms = table.fixed_ms + sum(times[span] for span in plan.spans)
        plans.append(plan.model_copy(update={"predicted_ms": here_ms}))
    networks = {file.stem: file.read_bytes() for file in files}
    found = bench(networks, table.target, timing=thorough(len(files)))
    order = [found[file.stem] for file in files]
    corrected, fidelity = judge(table, plans, order, CORRECTING)
    write_check(fidelity, output / f"{engine}_batch{batch}.csv")
    header = {k: corrected.header.get(k) for k in ("calibration", "fixed_ms")}
    print(f"{engine}, batch {batch}: {fidelity.sentence} {header}", flush=True)


def summaries(folder: Path) -> dict[str, dict[str, object]]:
    """Every check in `folder` without its single networks."""
    found = {}
    for file in sorted(folder.glob("*_batch*.check.json")):
        data = json.loads(file.read_text())
        found[file.name.split(".")[0]] = {k: v for k, v in data.items() if k != "runs"}
    return found


if __name__ == "__main__":
    main()
