"""Do sums of a table predict whole networks? MobileNetV2-1.0 at 224×224: 45 networks,
evenly spread from the fastest to the original; 5 of them correct each table, the other 40
were used for nothing but this check.

    python experiments/latency/fidelity.py table   # measures: leave the machine alone
    python experiments/latency/fidelity.py build   # takes its time
    python experiments/latency/fidelity.py check   # measures

The networks are drawn with the first table and are the same for all engines and batch
sizes. Tables and networks stay in --work, so that each step goes on where it was cut off.
Writes fidelity.json, and for each engine and batch the check and its picture.
"""

import json
from dataclasses import replace
from pathlib import Path

import mobilenet

from dpcompress.blueprint import Blueprint, Plan
from dpcompress.exporters import export_onnx
from dpcompress.files import write_bytes, write_text
from dpcompress.graph import linearize, merge_unchecked
from dpcompress.latency import Store, bench_networks, profile
from dpcompress.latency.fidelity import span_times, spread_plans
from dpcompress.pipeline.fidelity import judge, write_check
from dpcompress.runner import NETWORKS
from dpcompress.tables import LatencyTable

FITTED = 5
SECONDS = 60


def main() -> None:
    parser = mobilenet.arguments(__doc__)
    parser.add_argument("step", choices=["table", "build", "check"])
    parser.add_argument("--engines", nargs="+", default=["onnxruntime", "openvino"])
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8])
    parser.add_argument("--plans", type=int, default=40)
    options = parser.parse_args()
    work, cases = options.work, [(e, b) for e in options.engines for b in options.batches]
    blueprint_file = work / "blueprint.json"
    if options.step == "table":
        made, blueprint = mobilenet.network(options.model, options.size)
        write_text(blueprint_file, blueprint.to_json())
        for engine, batch in cases:
            table = profile(
                blueprint,
                original=mobilenet.original(made, blueprint, batch),
                engine=engine,
                batch=batch,
                threads=options.threads,
                store=Store(work / "measurements.sqlite"),
            )
            table.write(work / f"{engine}_batch{batch}.csv")
            print(engine, batch, table.original_ms, table.fixed_ms, flush=True)
    elif options.step == "build":
        first = LatencyTable.read(work / "onnxruntime_batch1.csv")
        build(work, first, options)
    else:
        blueprint = Blueprint.from_json(blueprint_file.read_bytes(), blueprint_file)
        for engine, batch in cases:
            check(work, blueprint, engine, batch, options.output)
        results = sorted(options.output.glob("*_batch*.check.json"))
        found = {
            file.name.split(".")[0]: json.loads(file.read_text()) for file in results
        }
        for summary in found.values():
            del summary["runs"]
        mobilenet.write(options.output / "fidelity.json", found)


def build(work: Path, table: LatencyTable, options) -> None:
    made, blueprint = mobilenet.network(options.model, options.size)
    plans = spread_plans(blueprint, table, options.plans + FITTED)
    for i, plan in enumerate(plans):
        write_text(work / f"{i:02}.json", plan.to_json())
        files = {batch: work / f"{i:02}_batch{batch}.onnx" for batch in options.batches}
        if not all(file.exists() for file in files.values()):
            merged = merge_unchecked(linearize(made, plan)).float()
            for batch, file in files.items():
                write_bytes(file, export_onnx(merged, blueprint.input, batch))
            print(i + 1, "of", len(plans), flush=True)


def check(
    work: Path, blueprint: Blueprint, engine: str, batch: int, output: Path
) -> None:
    table = LatencyTable.read(work / f"{engine}_batch{batch}.csv")
    times = span_times(blueprint, table)
    files = {file.stem[:2]: file for file in sorted(work.glob(f"??_batch{batch}.onnx"))}
    plans = []
    for name in files:
        path = work / f"{name}.json"
        plan = Plan.from_json(path.read_bytes(), path)
        here_ms = table.fixed_ms + sum(times[span] for span in plan.spans)
        plans.append(plan.model_copy(update={"latency_ms": here_ms}))
    measured = bench_networks(
        {name: file.read_bytes() for name, file in files.items()},
        engine=engine,
        threads=int(table.header["threads"]),
        sampling=replace(NETWORKS, max_seconds=SECONDS),
    )
    corrected, fidelity = judge(table, plans, [measured[n] for n in files], FITTED)
    write_check(fidelity, output / f"{engine}_batch{batch}.csv")
    header = {k: corrected.header.get(k) for k in ("calibration", "fixed_ms")}
    print(f"{engine}, batch {batch}: {fidelity.sentence} {header}", flush=True)


if __name__ == "__main__":
    main()
