"""The table, the check of its predictions and compressed networks on TensorRT: the steps
that need torch but no GPU. The steps between them need a GPU but no torch.

    python -m experiments tensorrt.measure ops FOLDER --precision fp16
    (on the GPU) python FOLDER/runner.pyz FOLDER/ops.zip -o FOLDER/ops.jsonl ...
    python -m experiments tensorrt.measure networks FOLDER
    (on the GPU) python FOLDER/runner.pyz FOLDER/networks.zip -o FOLDER/networks.jsonl ...
    python -m experiments tensorrt.measure report FOLDER

run.sh does all of it. A killed step is taken up again where it was.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from dpcompress.blueprint import Plan, keep_everything
from dpcompress.files import write_text
from dpcompress.latency import (
    pack_runner,
    table_from_results,
    write_bundle,
    write_networks,
)
from dpcompress.pipeline.whole_networks import judge, merged_onnx, write_check
from dpcompress.runner import Target
from dpcompress.runner.results import read_results
from dpcompress.solver import solve, spread_plans
from dpcompress.tables import ImportanceTable, LatencyTable
from experiments.latency.common import network

_FITTED = 5
"""Networks that correct the table, as in `profile --check`; others test it."""


def ops(options: argparse.Namespace) -> None:
    """What a table is made of, and the runner."""
    settings = {
        name: getattr(options, name) for name in ("model", "size", "batch", "precision")
    }
    write_text(options.folder / "settings.json", json.dumps(settings) + "\n")
    made, blueprint = network(options.model, options.size)
    count = write_bundle(
        blueprint,
        options.folder / "ops.zip",
        original=merged_onnx(made, keep_everything(blueprint), options.batch),
        target=Target("tensorrt", precision=options.precision, batch=options.batch),
    )
    pack_runner(options.folder / "runner.pyz")
    print(f"{options.folder}: {count} graphs")


def networks(options: argparse.Namespace) -> None:
    """The table, and the networks that put it to the test."""
    settings = json.loads((options.folder / "settings.json").read_text())
    made, blueprint = network(settings["model"], settings["size"])
    table = table_from_results(blueprint, options.folder / "ops.jsonl")
    table.write(options.folder / "table.csv")
    plans = {"original": keep_everything(blueprint)}
    spread = spread_plans(blueprint, table, options.plans + _FITTED)
    plans |= {f"check {n}": plan for n, plan in enumerate(spread)}
    if options.importance is not None:
        importance = ImportanceTable.read(options.importance)
        frontier, whole_ms = solve(table, importance), table.original_ms
        assert whole_ms is not None
        plans |= {f"{x:g}x": frontier.at(whole_ms / x) for x in options.speedups}
    text = json.dumps({name: json.loads(p.to_json()) for name, p in plans.items()})
    write_text(options.folder / "plans.json", text + "\n")
    write_networks(
        {n: merged_onnx(made, plan, settings["batch"]) for n, plan in plans.items()},
        options.folder / "networks.zip",
        target=Target("tensorrt", None, settings["precision"], batch=settings["batch"]),
    )
    print(f"{options.folder}: {len(plans)} networks")


def report(options: argparse.Namespace) -> None:
    """Predictions against measurements, and speed-ups; fails above 3 % mean error."""
    table = LatencyTable.read(options.folder / "table.csv")
    read = json.loads((options.folder / "plans.json").read_text())
    plans = {n: Plan.from_json(json.dumps(plan), n) for n, plan in read.items()}
    results = read_results(options.folder / "networks.jsonl")
    times = results.times
    checks = [name for name in plans if name.startswith("check")]
    corrected, fidelity = judge(
        table,
        [plans[name] for name in checks],
        [times[name] for name in checks],
        _FITTED,
    )
    corrected.write(options.folder / "corrected.csv")
    write_check(fidelity, options.folder / "table.csv")
    whole = times["original"]
    found: dict[str, Any] = {
        "engine": results.header["engine"] | results.notes,
        "batch": results.header["batch"],
        "original_ms": whole.median_ms,
        "original_spread_ms": whole.spread_ms,
        "table_original_ms": table.original_ms,
        "fidelity": fidelity.summary,
        "networks": [
            {
                "network": name,
                "layers": len(plans[name].boundaries) - 1,
                "predicted_ms": plans[name].predicted_ms,
                "measured_ms": time.median_ms,
                "spread_ms": time.spread_ms,
                "speedup": whole.median_ms / time.median_ms,
            }
            for name, time in times.items()
        ],
    }
    path = options.folder / "result.json"
    write_text(path, json.dumps(found, indent=1) + "\n")
    print(fidelity.sentence)
    for row in found["networks"]:
        print(f"{row['network']}: {row['measured_ms']:.3f} ms, {row['speedup']:.2f}x")
    if fidelity.mean_error > 0.03:
        raise SystemExit(f"mean error {fidelity.mean_error:.1%} is above 3 %")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    steps = parser.add_subparsers(required=True)
    for step in (ops, networks, report):
        about = step.__doc__ or ""
        sub = steps.add_parser(step.__name__, help=about.replace("%", "%%"))
        sub.add_argument("folder", type=Path)
        sub.set_defaults(step=step)
        if step is ops:
            sub.add_argument("--model", default="torchvision:mobilenet_v2")
            sub.add_argument("--size", type=int, default=224)
            sub.add_argument("--batch", type=int, default=128)
            sub.add_argument("--precision", default="fp32")
        if step is networks:
            sub.add_argument("--plans", type=int, default=12)
            sub.add_argument("--importance", type=Path)
            sub.add_argument("--speedups", type=float, nargs="+", default=[1.41, 1.95])
    options = parser.parse_args()
    options.step(options)


if __name__ == "__main__":
    main()
