"""The whole job: from a trained network and a budget to a faster network, resumable."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn

from dpcompress.blueprint import Blueprint, Plan, keep_everything
from dpcompress.blueprint.data import parse
from dpcompress.errors import UsageError
from dpcompress.exporters import check_onnx, export_onnx
from dpcompress.files import write_bytes, write_text
from dpcompress.graph import (
    fit_merged,
    linearize,
    merge,
    merge_unchecked,
    trace,
    with_norms,
    without_norms,
)
from dpcompress.importance import calibration_images, score, worth_scoring
from dpcompress.latency import Store, bench_networks, open_engine, profile
from dpcompress.models import load_model, load_weights, save_weights
from dpcompress.pipeline.calibration import calibrate
from dpcompress.pipeline.closed_loop import Loop, close_loop
from dpcompress.pipeline.ledger import Ledger
from dpcompress.pipeline.result import Result, Side, Speedup, Timing, macs, parameters
from dpcompress.pipeline.settings import S, Settings, read_settings
from dpcompress.pipeline.trials import Trials
from dpcompress.progress import Progress, silent
from dpcompress.report import plot_frontier, plot_structure
from dpcompress.solver import Frontier, parse_budget, solve
from dpcompress.tables import ImportanceTable, LatencyTable
from dpcompress.training import (
    Data,
    check_above_chance,
    evaluate,
    fit,
    load_data,
)

Bars = Callable[[str], AbstractContextManager[Progress]]
_CHECK_IMAGES = 1024
_CERTIFICATE_IMAGES = 16


@contextmanager
def no_bars(title: str) -> Iterator[Progress]:
    """Bars for callers that want no progress."""
    yield silent


def compress(settings: Settings | None, folder: Path, bars: Bars = no_bars) -> Result:
    """Compress a network end to end into `folder`; go on where it was cut off.

    Every step writes its file atomically and is redone only if what it was made from
    changed. With the latency table fixed, all files but the benchmark's result are the
    same bytes however often the run was killed, on the same machine and threads.

    Args:
        settings: None to go on with the settings in `folder`.
        bars: makes a progress bar for each long step.

    Raises:
        UsageError: `folder` holds a run with other settings, or none to go on with.
        DpcompressError: any step's own.
    """
    agreed = agree(settings, folder, Settings, _check, ("budget", "finetune"))
    return Run(agreed, folder, bars).result()


def agree(
    settings: S | None,
    folder: Path,
    kind: type[S],
    check: Callable[[S], None],
    until_planned: Sequence[str] = (),
) -> S:
    """The settings of the run in `folder`, new or gone on with.

    Args:
        settings: None for those in the folder.
        check: refuses new settings that cannot work.
        until_planned: names of those that may change as long as there is no plan.
    """
    path = folder / "run.json"
    begun = settings is None or (folder / "steps.json").exists()
    stored = read_settings(path, kind) if begun and path.exists() else None
    if settings is None:
        if stored is None:
            raise UsageError(f"{folder} holds no run.", f"Say what to {kind.verb}.")
        return stored
    if settings.threads is None:
        threads = stored.threads if stored else torch.get_num_threads()
        settings = settings.model_copy(update={"threads": threads})
    if stored is not None:
        asked, had = settings.model_dump(), stored.model_dump()
        changed = [name for name in had if asked[name] != had[name]]
        if not (folder / "plan.json").exists():
            # An infeasible budget must not cost the tables that it was tried on.
            changed = [name for name in changed if name not in until_planned]
        if changed:
            raise UsageError(
                f"{folder} holds a run with other settings ({', '.join(changed)}).",
                f"Go on with `dpcompress {kind.verb} -o FOLDER` alone, or choose another "
                "folder.",
            )
    if settings != stored:
        check(settings)
        write_text(path, settings.model_dump_json(indent=1) + "\n")
    return settings


def _check(settings: Settings) -> None:
    """Find before the first hour what would otherwise end the run after it."""
    parse_budget(settings.budget, 1.0)
    open_engine(settings.engine, precision=settings.precision, device=settings.device)
    trace(load_model(settings.model, None, settings.model_args), settings.input)


class Run:
    """One method per step, in order; each leaves files that the next ones read."""

    def __init__(self, settings: Settings, folder: Path, bars: Bars) -> None:
        self.settings, self.folder, self.bars = settings, folder, bars
        self.ledger = Ledger(folder)

    def steps(self) -> Sequence[Callable[[], None]]:
        return (
            self.original,
            self.blueprint_file,
            self.original_onnx,
            self.latency,
            self.importance,
            self.plan_files,
            self.fitted,
            self.finetuned,
            self.merged,
            self.measured,
        )

    def result(self) -> Result:
        for step in self.steps():
            step()
        path = self.folder / "result.json"
        return parse(Result, path.read_bytes(), path)

    def original(self) -> None:
        settings = self.settings

        def run() -> None:
            network = self._new_network(settings.weights)
            if settings.pretrain is not None:
                torch.manual_seed(settings.seed)
                network = self._new_network(None)
                with self.bars("Train the original") as progress:
                    fit(
                        network,
                        self.data,
                        settings.pretrain,
                        checkpoint=self.folder / "original.checkpoint",
                        validate=False,
                        progress=progress,
                    )
            heldout = evaluate(network, self.data.heldout)
            check_above_chance(heldout, len(self.data.classes))
            test = evaluate(network, self.data.test)
            save_weights(self.folder / "original.safetensors", network.state_dict())
            self._write_json(
                "original.json",
                {
                    "data": self.data.description,
                    "heldout": asdict(heldout),
                    "test": asdict(test),
                },
            )

        self.ledger.step(
            "original",
            settings={
                **settings.model_dump(
                    mode="json",
                    include={
                        "model",
                        "model_args",
                        "weights",
                        "pretrain",
                        "input",
                        "seed",
                    },
                ),
                "data": self.data.digest,
            },
            makes=("original.safetensors", "original.json"),
            run=run,
        )
        (self.folder / "original.checkpoint").unlink(missing_ok=True)

    def blueprint_file(self) -> None:
        self.ledger.step(
            "trace",
            settings=self.settings.model_dump(mode="json", include={"input", "limits"}),
            reads=("original.safetensors",),
            makes=("blueprint.json",),
            run=lambda: write_text(
                self.folder / "blueprint.json",
                trace(self.network, self.settings.input, self.settings.limits).to_json(),
            ),
        )

    def original_onnx(self) -> None:
        """The original goes through the same path as the merged network: norms folded,
        same exporter. Otherwise the comparison would not be fair."""

        def run() -> None:
            linear = linearize(self.network, keep_everything(self.blueprint))
            network = merge_unchecked(linear).float()
            data = export_onnx(network, self.settings.input, self.settings.batch)
            check_onnx(data, network, self.data.test.first(_CHECK_IMAGES))
            write_bytes(self.folder / "original.onnx", data)

        self.ledger.step(
            "export original",
            settings={"batch": self.settings.batch},
            reads=("original.safetensors", "blueprint.json"),
            makes=("original.onnx",),
            run=run,
        )

    def latency(self) -> None:
        settings = self.settings

        def run() -> None:
            if settings.latency is not None:
                table = LatencyTable.read(settings.latency)
                table.require(self.blueprint.digest)
            else:
                title = f"Time the layers on {settings.engine}"
                with self._store() as store, self.bars(title) as progress:
                    table = profile(
                        self.blueprint,
                        original=(self.folder / "original.onnx").read_bytes(),
                        engine=settings.engine,
                        batch=settings.batch,
                        threads=settings.threads,
                        precision=settings.precision,
                        device=settings.device,
                        store=store,
                        progress=progress,
                    )
                with self.bars("Calibrate on whole networks") as progress:
                    table = calibrate(
                        table, self.network, self.blueprint, progress=progress
                    )
            table.write(self.folder / "latency.csv")

        self.ledger.step(
            "profile",
            settings=settings.model_dump(
                mode="json",
                include={
                    *("engine", "precision", "device", "threads", "batch", "latency")
                },
            ),
            # Latency does not depend on the weights, so a retrained original keeps it.
            reads=("blueprint.json",),
            makes=("latency.csv",),
            run=run,
        )

    def importance(self) -> None:
        scoring, journal = self.settings.scoring, self.folder / "importance.jsonl"

        def run() -> None:
            latency = LatencyTable.read(self.folder / "latency.csv")
            with self.bars("Score the spans") as progress:
                table = score(
                    self.network,
                    self.blueprint,
                    self.data,
                    estimator=scoring.chosen,
                    spans=worth_scoring(self.blueprint, latency),
                    metric=scoring.metric,
                    alpha=scoring.alpha,
                    journal=journal,
                    progress=progress,
                )
            table.write(self.folder / "importance.csv")

        self.ledger.step(
            "score",
            settings=scoring.model_dump(mode="json"),
            reads=("original.safetensors", "blueprint.json", "latency.csv"),
            makes=("importance.csv",),
            run=run,
        )

    def plan_files(self) -> None:
        def run() -> None:
            latency = LatencyTable.read(self.folder / "latency.csv")
            table = ImportanceTable.read(self.folder / "importance.csv")
            frontier = solve(latency, table)
            budget_ms = parse_budget(self.settings.budget, latency.original_ms)
            if self.settings.measures:
                plan = self._measured_plan(frontier, budget_ms, latency)
            else:
                plan = frontier.at(budget_ms)
            frontier.write(self.folder / "frontier.csv")
            picture = plot_frontier(
                frontier.latency_ms.tolist(),
                frontier.importance.tolist(),
                chosen=(plan.latency_ms or 0.0, plan.importance or 0.0),
                original_ms=latency.original_ms,
                budget_ms=budget_ms,
            )
            write_bytes(self.folder / "frontier.png", picture)
            write_bytes(
                self.folder / "structure.png", plot_structure(self.blueprint, plan)
            )
            write_text(self.folder / "plan.json", plan.to_json())

        self.ledger.step(
            "solve",
            settings={"budget": self.settings.budget, "measure": self.settings.measures},
            reads=("blueprint.json", "latency.csv", "importance.csv"),
            makes=(
                *("frontier.csv", "frontier.png", "structure.png", "plan.json"),
                *(("closed_loop.json",) if self.settings.measures else ()),
            ),
            run=run,
        )

    def _measured_plan(
        self, frontier: Frontier, budget_ms: float, latency: LatencyTable
    ) -> Plan:
        original = (self.folder / "original.onnx").read_bytes()
        with self._store() as store, self.bars("Measure planned networks") as progress:
            plan, loop = close_loop(
                frontier,
                budget_ms,
                Trials(self.network, original, latency, store),
                progress=progress,
            )
        self._write_json("closed_loop.json", loop.model_dump(mode="json"))
        return plan

    def fitted(self) -> None:
        if not self.settings.fits:
            return

        def run() -> None:
            with self.bars("Fit the spans") as progress:
                network, report = fit_merged(
                    self.network, self.plan, self._calibration(), progress=progress
                )
            save_weights(self.folder / "fitted.safetensors", network.state_dict())
            report.write(self.folder / "fit.json")

        self.ledger.step(
            "fit",
            settings={"images": self.settings.images, "seed": self.settings.seed},
            reads=("original.safetensors", "plan.json"),
            makes=("fitted.safetensors", "fit.json"),
            run=run,
        )

    def finetuned(self) -> None:
        if not self.settings.trains:
            return
        merged = self.settings.form == "merged"

        def run() -> None:
            if merged:
                network = self._merged_network("fitted.safetensors")
                with_norms(network, self._calibration())
            else:
                network = linearize(self.network, self.plan)
            with self.bars("Fine-tune") as progress:
                fit(
                    network,
                    self.data,
                    self.settings.finetune,
                    teacher=self.network,
                    checkpoint=self.folder / "finetune.checkpoint",
                    log=self.folder / "finetune.csv",
                    validate=False,
                    progress=progress,
                )
            if merged:
                without_norms(network)
            save_weights(self.folder / "finetuned.safetensors", network.state_dict())

        start = ("fitted.safetensors",) if merged else ()
        self.ledger.step(
            "finetune",
            settings=self.settings.finetune.model_dump(mode="json"),
            reads=("original.safetensors", "plan.json", *start),
            makes=("finetuned.safetensors", "finetune.csv"),
            run=run,
        )
        (self.folder / "finetune.checkpoint").unlink(missing_ok=True)

    def merged(self) -> None:
        fits = self.settings.fits
        source = "finetuned" if self.settings.trains else "fitted"
        weights = f"{source}.safetensors"

        def run() -> None:
            images = self.data.test.first(_CHECK_IMAGES)
            if fits:
                network = expected = self._merged_network(weights)
            else:
                expected = linearize(self.network, self.plan)
                load_weights(expected, self.folder / weights)
                network, certificate = merge(expected, images[:_CERTIFICATE_IMAGES])
                certificate.write(self.folder / "certificate.json")
            data = export_onnx(network, self.settings.input, self.settings.batch)
            check = check_onnx(data, expected, images)
            self._write_json("export.json", asdict(check))
            save_weights(self.folder / "merged.safetensors", network.state_dict())
            write_bytes(self.folder / "compressed.onnx", data)

        self.ledger.step(
            "merge",
            settings={"batch": self.settings.batch},
            reads=("plan.json", weights),
            makes=(
                *(() if fits else ("certificate.json",)),
                "export.json",
                "merged.safetensors",
                "compressed.onnx",
            ),
            run=run,
        )

    def measured(self) -> None:
        settings = self.settings

        def run() -> None:
            files = {"original": "original.onnx", "compressed": "compressed.onnx"}
            with self.bars("Time both networks") as progress:
                times = bench_networks(
                    {
                        name: (self.folder / file).read_bytes()
                        for name, file in files.items()
                    },
                    engine=settings.engine,
                    threads=settings.threads,
                    precision=settings.precision,
                    device=settings.device,
                    progress=progress,
                )
            network = self._merged_network("merged.safetensors")
            original = json.loads((self.folder / "original.json").read_text())
            test = evaluate(network, self.data.test)
            result = Result.of(
                original=Side(
                    layers=self.blueprint.depth,
                    parameters=parameters(self.network),
                    macs=macs(self.network, settings.input),
                    accuracy=original["test"]["accuracy"],
                    predicted_ms=self._original_ms(),
                    measured=Timing.of(times["original"]),
                ),
                compressed=Side(
                    layers=len(self.plan.spans),
                    parameters=parameters(network),
                    macs=macs(network, settings.input),
                    accuracy=test.accuracy,
                    predicted_ms=self.plan.latency_ms,
                    measured=Timing.of(times["compressed"]),
                ),
                test_images=test.count,
                speedup=Speedup.of(times["original"], times["compressed"]),
                loop=self._loop() if settings.measures else None,
                budget_ms=self.plan.budget_ms,
                engine=settings.engine,
                batch=settings.batch,
                threads=settings.threads,
            )
            self._write_json("result.json", result.model_dump(mode="json"))

        self.ledger.step(
            "bench",
            settings={
                **settings.model_dump(
                    mode="json", include={"engine", "precision", "device", "threads"}
                ),
                "format": Result.model_json_schema(),
            },
            reads=(
                *("original.onnx", "compressed.onnx", "merged.safetensors"),
                *("latency.csv", "plan.json", "closed_loop.json"),
            ),
            makes=("result.json",),
            run=run,
        )

    @cached_property
    def data(self) -> Data:
        settings = self.settings
        return load_data(
            settings.data,
            input_size=settings.input,
            resize=settings.resize,
            crop=settings.crop,
            mean=settings.mean,
            std=settings.std,
        )

    @cached_property
    def network(self) -> nn.Module:
        """The trained original, in eval mode."""
        network = self._new_network(None)
        load_weights(network, self.folder / "original.safetensors")
        return network.eval()

    @cached_property
    def blueprint(self) -> Blueprint:
        path = self.folder / "blueprint.json"
        return Blueprint.from_json(path.read_bytes(), path)

    @cached_property
    def plan(self) -> Plan:
        path = self.folder / "plan.json"
        return Plan.from_json(path.read_bytes(), path)

    def _loop(self) -> Loop:
        path = self.folder / "closed_loop.json"
        return parse(Loop, path.read_bytes(), path)

    def _store(self) -> Store:
        """All that was measured: with it, a redone step finds the same."""
        return Store(self.folder / "measurements.sqlite")

    def _original_ms(self) -> float | None:
        return LatencyTable.read(self.folder / "latency.csv").original_ms

    def _new_network(self, weights: str | None) -> nn.Module:
        return load_model(self.settings.model, weights, self.settings.model_args)

    def _merged_network(self, weights: str) -> fx.GraphModule:
        network = merge_unchecked(linearize(self.network, self.plan)).float()
        load_weights(network, self.folder / weights)
        return network

    def _calibration(self) -> Tensor:
        return calibration_images(self.data, self.settings.images, self.settings.seed)

    def _write_json(self, file: str, value: dict[str, Any]) -> None:
        write_text(self.folder / file, json.dumps(value, indent=1) + "\n")
