"""DepthShrinker as a run: the steps of `compress` with another way to the plan."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from dpcompress.depthshrinker import Merger, finetune_fading, mask_groups, search
from dpcompress.depthshrinker.groups import check_keep
from dpcompress.graph import trace
from dpcompress.models import load_model
from dpcompress.pipeline.begin import begin, require_own_table
from dpcompress.pipeline.folder import MasksFound, RunFolder
from dpcompress.pipeline.result import Result
from dpcompress.pipeline.shared_steps import BENCH, EXPORT, MERGE, PROFILE, TRACE, TRAIN
from dpcompress.pipeline.steps import Bars, Step, no_bars, run_steps
from dpcompress.report import plot_masks, plot_structure
from dpcompress.settings import ShrinkSettings
from dpcompress.tables import LatencyTable

Run = RunFolder[ShrinkSettings]


def shrink(settings: ShrinkSettings | None, folder: Path, bars: Bars = no_bars) -> Result:
    """Run DepthShrinker end to end into `folder` (Fu et al. 2022), or go on where it was
    cut off. See `compress` for what that promises.

    Args:
        settings: None to go on with the settings in `folder`.
        bars: makes a progress bar for each long step.

    Raises:
        UsageError: a number of masks that cannot be kept; `folder` holds another run.
        BadInput: the network has nothing to mask in this way.
        BadTable: the latency table is of another network.
        DpcompressError: any step's own.
    """
    run = begin(
        settings, folder, ShrinkSettings, _check, until_planned=("keep", "finetune")
    )
    run_steps(STEPS, run, bars)
    return run.result


def _check(settings: ShrinkSettings) -> None:
    """Check first what would otherwise end the run after hours."""
    settings.target.open()
    network = load_model(settings.model, None, settings.model_args)
    blueprint = trace(network, settings.input, settings.limits)
    check_keep(mask_groups(blueprint, settings.by), settings.keep, settings.by)
    require_own_table(settings, blueprint)


def search_masks(run: Run, bars: Bars) -> None:
    """Find by training which masks stay on."""
    settings, original = run.settings, run.original_network()
    with bars(f"Search for {settings.keep} masks") as progress:
        found = search(
            original,
            run.blueprint,
            run.data,
            settings.keep,
            by=settings.by,
            recipe=settings.search,
            latency=_table(run),
            latency_weight=settings.latency_weight,
            teacher=original,
            checkpoint=run.path / "search.checkpoint",
            progress=progress,
        )
    run.mask_history = found.history
    run.masks_picture = plot_masks(found.history)
    run.masks = MasksFound(
        groups=found.groups, on=found.on, activations=found.activations
    )


def plan_masks(run: Run, bars: Bars) -> None:
    """Turn the activations that stay into a plan."""
    plan = Merger(run.blueprint, _table(run)).plan(
        run.masks.activations, free_activations=run.settings.free_activations
    )
    run.structure_picture = plot_structure(run.blueprint, plan)
    run.plan = plan


def finetune_fading_out(run: Run, bars: Bars) -> None:
    """Train the plan's network while the activations that it removes fade out."""
    settings = run.settings
    with bars("Fine-tune") as progress:
        network = finetune_fading(
            run.original_network(),
            run.plan,
            run.data,
            settings.finetune,
            fade=settings.fade,
            features=settings.features,
            checkpoint=run.path / "finetune.checkpoint",
            progress=progress,
        )
    run.save_network(network, "finetuned.safetensors", "linearized")


def _table(run: Run) -> LatencyTable | None:
    return run.latency if run.settings.latency else None


SEARCH = Step(
    "search",
    search_masks,
    makes=("masks.csv", "masks.png", "masks.json"),
    settings=("keep", "by", "search", "latency", "latency_weight"),
    scratch=("search.checkpoint",),
)
PLAN = Step(
    "plan",
    plan_masks,
    makes=("structure.png", "plan.json"),
    settings=("free_activations", "latency"),
)
FINETUNE = Step(
    "finetune",
    finetune_fading_out,
    makes=("finetuned.safetensors",),
    settings=("finetune", "fade", "features"),
    scratch=("finetune.checkpoint",),
)
PROFILE_IF_GIVEN = replace(PROFILE, when=lambda settings: settings.latency is not None)
STEPS = (
    TRAIN,
    TRACE,
    EXPORT,
    PROFILE_IF_GIVEN,
    SEARCH,
    PLAN,
    FINETUNE,
    MERGE,
    BENCH,
)
