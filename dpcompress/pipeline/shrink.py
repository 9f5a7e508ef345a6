"""DepthShrinker as a run: the steps of `compress` with another way to the plan."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from dpcompress.blueprint import Blueprint
from dpcompress.depthshrinker import Merger, finetune_fading, mask_groups, search
from dpcompress.depthshrinker.groups import check_keep
from dpcompress.files import write_bytes, write_text
from dpcompress.graph import trace
from dpcompress.models import load_model
from dpcompress.pipeline.result import Result
from dpcompress.pipeline.run import Bars, Run, agree, check_table, no_bars
from dpcompress.report import plot_masks, plot_structure
from dpcompress.settings import ShrinkSettings
from dpcompress.tables import LatencyTable


def shrink(settings: ShrinkSettings | None, folder: Path, bars: Bars = no_bars) -> Result:
    """DepthShrinker end to end into `folder` (Fu et al. 2022); goes on where it was cut
    off. See `compress` for what that promises.

    Args:
        settings: None to go on with the settings in `folder`.
        bars: makes a progress bar for each long step.

    Raises:
        UsageError: a number of masks that cannot be kept; `folder` holds another run.
        BadInput: the network has nothing to mask in this way.
        BadTable: the latency table is of another network.
        DpcompressError: any step's own.
    """
    agreed = agree(settings, folder, ShrinkSettings, _check, ("keep", "finetune"))
    return _Shrink(agreed, folder, bars).result()


def _check(settings: ShrinkSettings) -> None:
    """Find before the first hour what would otherwise end the run after it."""
    settings.target.open()
    network = load_model(settings.model, None, settings.model_args)
    blueprint = trace(network, settings.input, settings.limits)
    check_keep(mask_groups(blueprint, settings.by), settings.keep, settings.by)
    check_table(settings, blueprint)


class _Shrink(Run[ShrinkSettings]):
    def steps(self) -> Sequence[Callable[[], None]]:
        return (
            self.original,
            self.blueprint_file,
            self.original_onnx,
            *([self.latency] if self.settings.latency else []),
            self.searched,
            self.planned,
            self.finetuned,
            self.merged,
            self.measured,
        )

    def searched(self) -> None:
        settings = self.settings

        def run() -> None:
            with self.bars(f"Search for {settings.keep} masks") as progress:
                found = search(
                    self.network,
                    self.blueprint,
                    self.data,
                    settings.keep,
                    by=settings.by,
                    recipe=settings.search,
                    latency=self._table(),
                    latency_weight=settings.latency_weight,
                    teacher=self.network,
                    checkpoint=self.folder / "search.checkpoint",
                    progress=progress,
                )
            write_text(self.folder / "masks.csv", found.history.to_csv(index=False))
            write_bytes(self.folder / "masks.png", plot_masks(found.history))
            self._write_json(
                "masks.json",
                {
                    "groups": found.groups,
                    "on": found.on,
                    "activations": found.activations,
                },
            )

        self.ledger.step(
            "search",
            settings=settings.model_dump(
                mode="json",
                include={"keep", "by", "search", "latency_weight", "limits"},
            ),
            reads=(
                *("original.safetensors", "original.json", "blueprint.json"),
                *self._table_file(),
            ),
            makes=("masks.csv", "masks.png", "masks.json"),
            run=run,
        )
        (self.folder / "search.checkpoint").unlink(missing_ok=True)

    def planned(self) -> None:
        def run() -> None:
            found = json.loads((self.folder / "masks.json").read_text())
            blueprint: Blueprint = self.blueprint
            plan = Merger(blueprint, self._table()).plan(
                found["activations"], free_activations=self.settings.free_activations
            )
            write_bytes(self.folder / "structure.png", plot_structure(blueprint, plan))
            write_text(self.folder / "plan.json", plan.to_json())

        self.ledger.step(
            "plan",
            settings={"free_activations": self.settings.free_activations},
            reads=("blueprint.json", "masks.json", *self._table_file()),
            makes=("structure.png", "plan.json"),
            run=run,
        )

    def finetuned(self) -> None:
        settings = self.settings

        def run() -> None:
            with self.bars("Fine-tune") as progress:
                network = finetune_fading(
                    self.network,
                    self.plan,
                    self.data,
                    settings.finetune,
                    fade=settings.fade,
                    features=settings.features,
                    checkpoint=self.folder / "finetune.checkpoint",
                    progress=progress,
                )
            self._save("linearized", network, "finetuned.safetensors")

        self.ledger.step(
            "finetune",
            settings=settings.model_dump(
                mode="json", include={"finetune", "fade", "features"}
            ),
            reads=("original.safetensors", "original.json", "plan.json"),
            makes=("finetuned.safetensors",),
            run=run,
        )
        (self.folder / "finetune.checkpoint").unlink(missing_ok=True)

    def _table_file(self) -> tuple[str, ...]:
        return ("latency.csv",) if self.settings.latency else ()

    def _table(self) -> LatencyTable | None:
        return (
            LatencyTable.read(self.folder / "latency.csv")
            if self.settings.latency
            else None
        )

    def _original_ms(self) -> float | None:
        table = self._table()
        return None if table is None else table.original_ms
