"""What all methods share: network, data, tables, the clock; each made once and kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, TypeAdapter
from torch import nn

from dpcompress.blueprint import Blueprint, Plan, keep_everything
from dpcompress.cli.output import progress_bar
from dpcompress.depthshrinker import By
from dpcompress.exporters import export
from dpcompress.files import digest
from dpcompress.graph import build, trace
from dpcompress.importance import Estimator, Finetune, score, worth_scoring
from dpcompress.latency import Store, bench, profile
from dpcompress.models import load_weights
from dpcompress.pipeline.whole_networks import calibrate
from dpcompress.runner import NETWORKS, Ratio, ratio
from dpcompress.tables import ImportanceTable, LatencyTable
from dpcompress.training import Data, Split, load_data, state_digest
from experiments.cifar10.config import Config
from experiments.cifar10.masks import Ranking, rank
from experiments.cifar10.network import mobilenet_v2
from experiments.cifar10.pruned import pruned
from experiments.cifar10.width import narrowed

INPUT = (3, 32, 32)


class Channels(BaseModel):
    """About `share` of the original's channels, everywhere alike."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    how: Literal["narrowed", "pruned"]
    share: float


Shape = Plan | Channels | None
"""Of a network: a plan of the original, fewer channels, or as it is."""
SHAPE: TypeAdapter[Shape] = TypeAdapter(Shape)


def fit_estimator(config: Config) -> Estimator:
    from dpcompress.importance import Fit

    return Fit(images=config.calibration_images)


ESTIMATORS: dict[str, Callable[[Config], Estimator]] = {
    "finetune": lambda config: Finetune(
        config.scoring,
        renew=config.renew,
        free_activations=config.free_activations,
    ),
    "fit": fit_estimator,
}


class Context:
    """A comparison's folder and what is in it."""

    def __init__(
        self, config: Config, data: str, weights: Path, folder: Path, workers: int = 1
    ) -> None:
        self.config, self.folder, self.workers = config, folder, workers
        self._data, self._weights = data, weights

    @cached_property
    def original(self) -> nn.Module:
        network = mobilenet_v2()
        load_weights(network, self._weights)
        return network.eval()

    @cached_property
    def blueprint(self) -> Blueprint:
        return trace(self.original, INPUT)

    @cached_property
    def data(self) -> Data:
        data, config = load_data(self._data, input_size=INPUT), self.config
        counts = {
            "train": config.train_images,
            "heldout": config.heldout_images,
            "test": config.test_images,
        }
        splits = {
            name: _thinned(getattr(data, name), count) for name, count in counts.items()
        }
        return replace(data, **splits, description={**data.description, "used": counts})

    @cached_property
    def latency(self) -> LatencyTable:
        config = self.config
        settings = [config.engine, config.batch, config.threads, self.blueprint.digest]
        path = self.folder / f"latency_{digest(settings)}.csv"
        if not path.exists():
            with progress_bar("Time the layers") as progress:
                table = profile(
                    self.blueprint,
                    original=self.original_onnx,
                    target=config.target,
                    store=Store(self.folder / "measurements.sqlite"),
                    progress=progress,
                )
            calibrate(table, self.original, self.blueprint).write(path)
        return LatencyTable.read(path)

    def importance(self, estimator: str) -> ImportanceTable:
        """The table by one of ESTIMATORS; a killed call goes on where it was."""
        config, made = self.config, ESTIMATORS[estimator](self.config)
        settings = [made.settings, made.free_activations, config.metric, config.alpha]
        made_from = [self.data.digest, state_digest(self.original), self.latency.digest]
        key = digest([*settings, *made_from])
        path = self.folder / f"importance_{estimator}_{key}.csv"
        if not path.exists():
            with progress_bar(f"Score the spans ({estimator})") as progress:
                score(
                    self.original,
                    self.blueprint,
                    self.data,
                    estimator=made,
                    spans=worth_scoring(self.blueprint, self.latency),
                    metric=config.metric,
                    alpha=config.alpha,
                    workers=self.workers,
                    journal=path.with_suffix(".journal.jsonl"),
                    progress=progress,
                ).write(path)
        return ImportanceTable.read(path)

    def ranking(self, by: By) -> Ranking:
        """DepthShrinker's masks, searched once for all budgets."""
        settings = [by, self.config.search.model_dump(), self.data.digest]
        key = digest([*settings, state_digest(self.original)])
        path = self.folder / f"masks_{by}_{key}.json"
        if not path.exists():
            with progress_bar(f"Search the masks ({by})") as progress:
                rank(
                    *(self.original, self.blueprint, self.data, by),
                    recipe=self.config.search,
                    checkpoint=path.with_suffix(".checkpoint"),
                    progress=progress,
                ).write(path)
        return Ranking.read(path)

    def build(self, shape: Shape) -> nn.Module:
        """The network of this shape as it is deployed, untrained."""
        if isinstance(shape, Channels):
            if shape.how == "pruned":
                return pruned(self.original, shape.share, INPUT)
            return narrowed(self.original, self.blueprint, shape.share)
        plan = shape or keep_everything(self.blueprint)
        return build(self.original, plan)

    def export(self, shape: Shape) -> bytes:
        """ONNX with norms folded, whatever the shape."""
        network = self.build(shape)
        if isinstance(shape, Channels):
            everything = keep_everything(trace(network.eval(), INPUT))
            network = build(network, everything)
        return export(network, INPUT, self.config.batch)

    @cached_property
    def original_onnx(self) -> bytes:
        return self.export(None)

    def speedup(self, shape: Shape) -> Ratio:
        """Measured, against the original, interleaved."""
        times = bench(
            {"original": self.original_onnx, "other": self.export(shape)},
            self.config.target,
            timing=replace(NETWORKS, max_seconds=self.config.measure_seconds),
        )
        return ratio(times["original"], times["other"])


def _thinned(split: Split, count: int | None) -> Split:
    """`count` of the images, of every class alike."""
    if count is None or count >= len(split):
        return split
    order = split.labels.argsort(stable=True)
    chosen = order[len(split) * torch.arange(count) // count].sort().values
    return replace(split, indices=split.indices[chosen], labels=split.labels[chosen])
