"""What every run does, whatever its way to a plan: files, steps, and how they resume."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any, Generic

import torch
from torch import fx, nn

from dpcompress.blueprint import Blueprint, Plan, keep_everything
from dpcompress.blueprint.data import parse
from dpcompress.errors import UsageError
from dpcompress.exporters import check_onnx, export
from dpcompress.files import write_bytes, write_text
from dpcompress.graph import linearize, merge, merge_unchecked, trace
from dpcompress.latency import Store, bench, profile
from dpcompress.models import (
    Origin,
    load_model,
    load_weights,
    require_origin,
    save_weights,
    weights_digest,
)
from dpcompress.models.origin import Form
from dpcompress.pipeline.calibration import calibrate
from dpcompress.pipeline.closed_loop import Loop
from dpcompress.pipeline.ledger import Ledger
from dpcompress.pipeline.result import Result, Side, Speedup, Timing, macs, parameters
from dpcompress.progress import Progress, silent
from dpcompress.settings import RunSettings, read_settings
from dpcompress.settings.run import S
from dpcompress.tables import LatencyTable
from dpcompress.training import Data, check_above_chance, evaluate, finetune, load_data

Bars = Callable[[str], AbstractContextManager[Progress]]
_CHECK_IMAGES = 1024
_CERTIFICATE_IMAGES = 16


@contextmanager
def no_bars(title: str) -> Iterator[Progress]:
    """Bars for callers that want no progress."""
    yield silent


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


def _files(path: str | None) -> tuple[str, ...]:
    """Those of the user's own that a setting names."""
    return (path,) if path is not None and path != "default" else ()


def check_table(settings: RunSettings, blueprint: Blueprint) -> None:
    """Refuse a latency table that is of another network, or not of this run's engine.

    Raises:
        BadTable: it cannot be read, or is of another network.
        UsageError: it was made for another engine, precision or batch.
    """
    if settings.latency is None:
        return
    table = LatencyTable.read(settings.latency)
    table.require(blueprint.digest)
    engine = settings.engine.partition(":")[0]
    asked = {"engine": engine, "precision": settings.precision, "batch": settings.batch}
    for name, wanted in asked.items():
        made = table.header.get(name, str(wanted)).partition(":")[0]
        if made != str(wanted):
            raise UsageError(
                f"{settings.latency} was made for {name} {made}, not {wanted}.",
                f"Give --{name} {made}, or another table.",
            )


class Run(ABC, Generic[S]):
    """One method per step, in order; each leaves files that the next ones read.

    merges_exactly: whether the network of `trained` is the linearized one, which is
        merged with a certificate, or the merged one already.
    """

    merges_exactly = True
    trained = "finetuned.safetensors"

    def __init__(self, settings: S, folder: Path, bars: Bars) -> None:
        self.settings, self.folder, self.bars = settings, folder, bars
        self.ledger = Ledger(folder)

    @abstractmethod
    def steps(self) -> Sequence[Callable[[], None]]:
        """All steps, in order."""

    def result(self) -> Result:
        for step in self.steps():
            step()
        path = self.folder / "result.json"
        return parse(Result, path.read_bytes(), path)

    def original(self) -> None:
        settings = self.settings

        def run() -> None:
            torch.manual_seed(settings.seed)
            network = self._new_network(settings.weights)
            if settings.pretrain is not None:
                with self.bars("Train the original") as progress:
                    finetune(
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
            state = network.state_dict()
            origin = Origin(form="original", original=weights_digest(state))
            save_weights(self.folder / "original.safetensors", state, origin)
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
            takes=_files(settings.weights),
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
            data = export(network, self.settings.input, self.settings.batch)
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
                        target=settings.target,
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
            takes=_files(settings.latency),
            makes=("latency.csv",),
            run=run,
        )

    def merged(self) -> None:
        exact, weights = self.merges_exactly, self.trained

        def run() -> None:
            images = self.data.test.first(_CHECK_IMAGES)
            if not exact:
                network = expected = self._merged_network(weights)
            else:
                expected = linearize(self.network, self.plan)
                self._load("linearized", expected, weights)
                network, certificate = merge(expected, images[:_CERTIFICATE_IMAGES])
                certificate.write(self.folder / "certificate.json")
            data = export(network, self.settings.input, self.settings.batch)
            check = check_onnx(data, expected, images)
            self._write_json("export.json", asdict(check))
            self._save("merged", network, "merged.safetensors")
            write_bytes(self.folder / "compressed.onnx", data)

        self.ledger.step(
            "merge",
            settings={"batch": self.settings.batch},
            reads=("original.json", "plan.json", weights),
            makes=(
                *(("certificate.json",) if exact else ()),
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
                times = bench(
                    {
                        name: (self.folder / file).read_bytes()
                        for name, file in files.items()
                    },
                    settings.target,
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
                    predicted_ms=self.plan.predicted_ms,
                    measured=Timing.of(times["compressed"]),
                ),
                test_images=test.count,
                speedup=Speedup.of(times["original"], times["compressed"]),
                loop=self._loop(),
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
                *("original.json", "original.onnx"),
                *("compressed.onnx", "merged.safetensors"),
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
        return self._new_network(str(self.folder / "original.safetensors"))

    @cached_property
    def blueprint(self) -> Blueprint:
        path = self.folder / "blueprint.json"
        return Blueprint.from_json(path.read_bytes(), path)

    @cached_property
    def plan(self) -> Plan:
        path = self.folder / "plan.json"
        return Plan.from_json(path.read_bytes(), path)

    def _store(self) -> Store:
        """All that was measured: with it, a redone step finds the same."""
        return Store(self.folder / "measurements.sqlite")

    def _loop(self) -> Loop | None:
        """How the plan was chosen by measuring, if it was."""
        return None

    def _original_ms(self) -> float | None:
        return LatencyTable.read(self.folder / "latency.csv").original_ms

    def _new_network(self, weights: str | None) -> nn.Module:
        return load_model(self.settings.model, weights, self.settings.model_args)

    def _merged_network(self, weights: str) -> fx.GraphModule:
        network = merge_unchecked(linearize(self.network, self.plan)).float()
        self._load("merged", network, weights)
        return network

    def _origin(self, form: Form) -> Origin:
        """The origin of weights that this run makes."""
        original = weights_digest(self.network.state_dict())
        return Origin(form=form, original=original, plan=self.plan.digest)

    def _save(self, form: Form, network: nn.Module, file: str) -> None:
        save_weights(self.folder / file, network.state_dict(), self._origin(form))

    def _load(self, form: Form, network: nn.Module, file: str) -> None:
        wanted = self._origin(form)
        path = self.folder / file
        require_origin(path, form=form, plan=wanted.plan, original=wanted.original)
        load_weights(network, path)

    def _write_json(self, file: str, value: dict[str, Any]) -> None:
        write_text(self.folder / file, json.dumps(value, indent=1) + "\n")
