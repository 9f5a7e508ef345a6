"""Scoring a network: every entry its own job, in any order, on any number of workers."""

from __future__ import annotations

import importlib.machinery
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import cloudpickle
import joblib
import pandas as pd
import torch
from torch import nn

from dpcompress.blueprint import Blueprint, Span
from dpcompress.files import canonical_json, digest
from dpcompress.importance.entries import entries
from dpcompress.importance.finetune import Finetune
from dpcompress.importance.journal import Journal
from dpcompress.importance.protocol import Entry, Estimator
from dpcompress.importance.values import extend, normalise
from dpcompress.progress import Progress, silent
from dpcompress.tables import ImportanceTable
from dpcompress.training import Data, deterministic, state_digest

Metric = Literal["accuracy", "loss"]


def score(
    model: nn.Module,
    blueprint: Blueprint,
    data: Data,
    *,
    estimator: Estimator | None = None,
    spans: Iterable[Span] | None = None,
    metric: Metric = "loss",
    alpha: float = 1.2,
    workers: int | None = None,
    journal: Path | None = None,
    progress: Progress = silent,
) -> ImportanceTable:
    """The final importance table of a trained network: scored, normalised, extended.

    Each entry is one job, deterministic in (weights, blueprint, data, estimator, entry)
    and run on one thread; the table does not depend on `workers`, on order, or on how
    often the run was killed and called again with the same journal.

    Args:
        model: the trained original.
        estimator: default `Finetune()`.
        spans: which to score (default: all candidates; see `worth_scoring`).
        metric: whose change is the importance: "accuracy" as published, or "loss",
            the fall in held-out cross-entropy, which is finer on few images.
        alpha: of the normalisation.
        workers: processes (default: one per core, or one where there is a GPU).
        journal: file of finished jobs; they are found again by digest.
        progress: called after every job.

    Raises:
        BadInput: classes that do not match, unreadable images or journal.
    """
    estimator = estimator or Finetune()
    context = {
        "model": state_digest(model),
        "blueprint": blueprint.digest,
        "data": data.digest,
        "estimator": estimator.identity,
    }
    wanted: list[Entry | None] = [None, *entries(blueprint, spans)]
    keys = {entry: digest([context, entry]) for entry in wanted}
    book = Journal(journal)
    missing = [entry for entry in wanted if keys[entry] not in book.results]
    done = len(wanted) - len(missing)
    progress(done, len(wanted))
    with _shippable(model):
        for entry, metrics in _run(model, blueprint, data, estimator, missing, workers):
            book.add(keys[entry], metrics, entry=entry)
            done += 1
            progress(done, len(wanted), _name(entry))
    book.settle()
    original = book.results[keys[None]]
    sign = -1.0 if metric == "loss" else 1.0
    rows = [
        {
            **entry._asdict(),
            "importance": sign * (book.results[keys[entry]][metric] - original[metric]),
            **book.results[keys[entry]],
        }
        for entry in wanted
        if entry is not None
    ]
    frame, mean = normalise(pd.DataFrame(rows), alpha)
    header = {
        "blueprint": blueprint.digest,
        "input": "x".join(map(str, blueprint.input)),
        "model": context["model"],
        "data": data.digest,
        "heldout_images": len(data.heldout),
        "estimator": canonical_json(estimator.identity),
        "metric": metric,
        "alpha": alpha,
        "mean": mean,
        **{f"original_{name}": value for name, value in original.items()},
    }
    return ImportanceTable(extend(frame), {k: str(v) for k, v in header.items()})


def _run(
    model: nn.Module,
    blueprint: Blueprint,
    data: Data,
    estimator: Estimator,
    missing: list[Entry | None],
    workers: int | None,
) -> Iterator[tuple[Entry | None, dict[str, float]]]:
    """Results as they come; one worker means this process."""
    if workers is None:
        workers = 1 if torch.cuda.is_available() else joblib.cpu_count()
    workers = max(1, min(workers, len(missing)))
    with joblib.parallel_config(
        "loky" if workers > 1 else "sequential",
        # Images in memory reach the workers as one memory-mapped file, copy on write.
        **({"inner_max_num_threads": 1, "mmap_mode": "c"} if workers > 1 else {}),
    ):
        parallel = joblib.Parallel(n_jobs=workers, return_as="generator_unordered")
        yield from parallel(
            joblib.delayed(_job)(estimator, model, blueprint, data, entry)
            for entry in missing
        )


def _job(
    estimator: Estimator,
    model: nn.Module,
    blueprint: Blueprint,
    data: Data,
    entry: Entry | None,
) -> tuple[Entry | None, dict[str, float]]:
    with deterministic(threads=1):
        return entry, estimator(model, blueprint, data, entry)


@contextmanager
def _shippable(model: nn.Module) -> Iterator[None]:
    """Let workers rebuild a network whose classes come from a file that they cannot
    import by name."""
    names = {type(module).__module__ for module in model.modules()}
    foreign = [
        sys.modules[name]
        for name in names
        if name in sys.modules
        and importlib.machinery.PathFinder.find_spec(name.partition(".")[0]) is None
    ]
    for module in foreign:
        cloudpickle.register_pickle_by_value(module)
    try:
        yield
    finally:
        for module in foreign:
            cloudpickle.unregister_pickle_by_value(module)


def _name(entry: Entry | None) -> str:
    return "original" if entry is None else f"layers {entry.start + 1}..{entry.stop}"
