"""Two-stage dynamic programming as a run: from a trained network and a budget to a faster
network, resumable."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from torch import Tensor, fx

from dpcompress.blueprint import Plan
from dpcompress.graph import fit_merged, trace, with_norms, without_norms
from dpcompress.importance import (
    calibration_images,
    estimator_of,
    score,
    worth_scoring,
)
from dpcompress.models import load_model
from dpcompress.pipeline.begin import begin, require_own_table
from dpcompress.pipeline.closed_loop import close_loop
from dpcompress.pipeline.folder import RunFolder
from dpcompress.pipeline.result import Result
from dpcompress.pipeline.shared_steps import (
    BENCH,
    EXPORT,
    MERGE,
    PROFILE,
    TRACE,
    TRAIN,
    write_merged,
)
from dpcompress.pipeline.steps import Bars, Step, no_bars, run_steps
from dpcompress.pipeline.trials import Trials
from dpcompress.report import plot_frontier, plot_structure
from dpcompress.settings import Settings
from dpcompress.solver import Frontier, parse_budget, solve
from dpcompress.training import finetune

Run = RunFolder[Settings]


def compress(settings: Settings | None, folder: Path, bars: Bars = no_bars) -> Result:
    """Compress a network end to end into `folder`; go on where it was cut off.

    Every step writes its files atomically and is redone only if what it was made from
    changed. With the latency table fixed, all files but the benchmark's result are the
    same bytes however often the run was killed, on the same machine and threads.

    Args:
        settings: None to go on with the settings in `folder`.
        bars: makes a progress bar for each long step.

    Raises:
        UsageError: `folder` holds a run with other settings, or none to go on with.
        DpcompressError: any step's own.
    """
    run = begin(settings, folder, Settings, _check, until_planned=("budget", "finetune"))
    run_steps(STEPS, run, bars)
    return run.result


def _check(settings: Settings) -> None:
    """Check first what would otherwise end the run after hours."""
    parse_budget(settings.budget, 1.0)
    settings.target.open()
    network = load_model(settings.model, None, settings.model_args)
    require_own_table(settings, trace(network, settings.input, settings.limits))


def score_spans(run: Run, bars: Bars) -> None:
    """Score what every span's activations are worth."""
    scoring = run.settings.scoring
    with bars("Score the spans") as progress:
        run.importance = score(
            run.original_network(),
            run.blueprint,
            run.data,
            estimator=estimator_of(scoring, run.settings.trains),
            spans=worth_scoring(run.blueprint, run.latency),
            metric=scoring.metric,
            alpha=scoring.alpha,
            journal=run.path / "importance.jsonl",
            progress=progress,
        )


def choose_plan(run: Run, bars: Bars) -> None:
    """Find the best plan for every budget, and the one for this run's."""
    settings, latency = run.settings, run.latency
    frontier = solve(latency, run.importance)
    budget_ms = parse_budget(settings.budget, latency.original_ms)
    if settings.measures:
        plan = _measured_plan(run, bars, frontier, budget_ms)
    else:
        plan = frontier.at(budget_ms)
    run.frontier = list(frontier)
    chosen_ms = plan.measured_ms or plan.predicted_ms or 0.0
    run.frontier_picture = plot_frontier(
        frontier.latency_ms.tolist(),
        frontier.importance.tolist(),
        chosen=(chosen_ms, plan.importance or 0.0),
        original_ms=latency.original_ms,
        budget_ms=budget_ms,
        measured=settings.measures,
    )
    run.structure_picture = plot_structure(run.blueprint, plan)
    run.plan = plan


def _measured_plan(run: Run, bars: Bars, frontier: Frontier, budget_ms: float) -> Plan:
    """Choose the plan by the closed loop, and write the course of the loop."""
    network, original = run.original_network(), run.original_onnx
    with run.store() as store, bars("Measure planned networks") as progress:
        trials = Trials(network, original, run.latency, store)
        plan, run.closed_loop = close_loop(frontier, budget_ms, trials, progress=progress)
    return plan


def fit_spans(run: Run, bars: Bars) -> None:
    """Fit each merged span to the original by least squares."""
    with bars("Fit the spans") as progress:
        network, run.fit_report = fit_merged(
            run.original_network(), run.plan, _calibration(run), progress=progress
        )
    run.save_network(network, "fitted.safetensors", "merged")


def finetune_linearized(run: Run, bars: Bars) -> None:
    """Train the plan's linearized network, and write its weights."""
    network = run.linearized_network()
    _finetune(run, bars, network)
    run.save_network(network, "finetuned.safetensors", "linearized")


def finetune_merged(run: Run, bars: Bars) -> None:
    """Train the plan's merged network, from spans that were fitted."""
    network = run.merged_network("fitted.safetensors")
    with_norms(network, _calibration(run))
    _finetune(run, bars, network)
    without_norms(network)
    run.save_network(network, "finetuned.safetensors", "merged")


def _finetune(run: Run, bars: Bars, network: fx.GraphModule) -> None:
    with bars("Fine-tune") as progress:
        finetune(
            network,
            run.data,
            run.settings.finetune,
            teacher=run.original_network(),
            checkpoint=run.path / "finetune.checkpoint",
            log=run.to_write("finetune.csv"),
            validate=False,
            progress=progress,
        )


def export_fitted(run: Run, bars: Bars) -> None:
    """Export a network that is merged already: fitted, and perhaps trained since."""
    trains = run.settings.trains
    network = run.merged_network(
        "finetuned.safetensors" if trains else "fitted.safetensors"
    )
    write_merged(run, network, expected=network)


def _calibration(run: Run) -> Tensor:
    return calibration_images(run.data, run.settings.images, run.settings.seed)


SCORE = Step(
    "score", score_spans, makes=("importance.csv",), settings=("scoring", "train")
)
SOLVE = Step(
    "solve",
    choose_plan,
    makes=("frontier.csv", "frontier.png", "structure.png", "plan.json"),
    settings=("budget", "measure", "latency"),
)
FIT = Step(
    "fit",
    fit_spans,
    makes=("fitted.safetensors", "fit.json"),
    settings=("images", "seed"),
    when=lambda settings: settings.fits,
)
FINETUNE = Step(
    "finetune",
    finetune_linearized,
    makes=("finetuned.safetensors", "finetune.csv"),
    settings=("finetune",),
    scratch=("finetune.checkpoint",),
    when=lambda settings: settings.trains and not settings.fits,
)
FINETUNE_MERGED = Step(
    "finetune",
    finetune_merged,
    makes=("finetuned.safetensors", "finetune.csv"),
    settings=("finetune", "images", "seed"),
    scratch=("finetune.checkpoint",),
    when=lambda settings: settings.trains and settings.fits,
)
EXPORT_FITTED = Step(
    "merge",
    export_fitted,
    makes=("export.json", "merged.safetensors", "compressed.onnx"),
    settings=("input", "target", "train"),
    when=lambda settings: settings.fits,
)
MERGE_TRAINED = replace(MERGE, when=lambda settings: not settings.fits)
STEPS = (
    TRAIN,
    TRACE,
    EXPORT,
    PROFILE,
    SCORE,
    SOLVE,
    FIT,
    FINETUNE,
    FINETUNE_MERGED,
    MERGE_TRAINED,
    EXPORT_FITTED,
    BENCH,
)
