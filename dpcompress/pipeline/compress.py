"""Two-stage dynamic programming as a run: from a trained network and a budget to a faster
network, resumable."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from torch import Tensor

from dpcompress.blueprint import Plan
from dpcompress.blueprint.data import parse
from dpcompress.files import write_bytes, write_text
from dpcompress.graph import fit_merged, linearize, trace, with_norms, without_norms
from dpcompress.importance import (
    calibration_images,
    estimator_of,
    score,
    worth_scoring,
)
from dpcompress.models import load_model
from dpcompress.models.origin import Form
from dpcompress.pipeline.closed_loop import Loop, close_loop
from dpcompress.pipeline.result import Result
from dpcompress.pipeline.run import Bars, Run, agree, check_table, no_bars
from dpcompress.pipeline.trials import Trials
from dpcompress.report import plot_frontier, plot_structure
from dpcompress.settings import Settings
from dpcompress.solver import Frontier, parse_budget, solve
from dpcompress.tables import ImportanceTable, LatencyTable
from dpcompress.training import finetune


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
    return _Compress(agreed, folder, bars).result()


def _check(settings: Settings) -> None:
    """Find before the first hour what would otherwise end the run after it."""
    parse_budget(settings.budget, 1.0)
    settings.target.open()
    network = load_model(settings.model, None, settings.model_args)
    check_table(settings, trace(network, settings.input, settings.limits))


class _Compress(Run[Settings]):
    def __init__(self, settings: Settings, folder: Path, bars: Bars) -> None:
        super().__init__(settings, folder, bars)
        self.merges_exactly = not settings.fits
        if not settings.trains:
            self.trained = "fitted.safetensors"

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

    def importance(self) -> None:
        scoring, journal = self.settings.scoring, self.folder / "importance.jsonl"

        def run() -> None:
            latency = LatencyTable.read(self.folder / "latency.csv")
            with self.bars("Score the spans") as progress:
                table = score(
                    self.network,
                    self.blueprint,
                    self.data,
                    estimator=estimator_of(scoring),
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
            reads=(
                *("original.safetensors", "original.json"),
                *("blueprint.json", "latency.csv"),
            ),
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
                chosen=(
                    plan.measured_ms or plan.predicted_ms or 0.0,
                    plan.importance or 0.0,
                ),
                original_ms=latency.original_ms,
                budget_ms=budget_ms,
                measured=self.settings.measures,
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
            self._save("merged", network, "fitted.safetensors")
            report.write(self.folder / "fit.json")

        self.ledger.step(
            "fit",
            settings={"images": self.settings.images, "seed": self.settings.seed},
            reads=("original.safetensors", "original.json", "plan.json"),
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
                finetune(
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
            form: Form = "merged" if merged else "linearized"
            self._save(form, network, "finetuned.safetensors")

        start = ("fitted.safetensors",) if merged else ()
        self.ledger.step(
            "finetune",
            settings=self.settings.finetune.model_dump(mode="json"),
            reads=("original.safetensors", "original.json", "plan.json", *start),
            makes=("finetuned.safetensors", "finetune.csv"),
            run=run,
        )
        (self.folder / "finetune.checkpoint").unlink(missing_ok=True)

    def _loop(self) -> Loop | None:
        if not self.settings.measures:
            return None
        path = self.folder / "closed_loop.json"
        return parse(Loop, path.read_bytes(), path)

    def _calibration(self) -> Tensor:
        return calibration_images(self.data, self.settings.images, self.settings.seed)
