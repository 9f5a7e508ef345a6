"""Scoring a network: every entry its own job, in any order, on any number of workers."""

from __future__ import annotations

import importlib.machinery
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Literal

import cloudpickle
import joblib
import pandas as pd
import torch
from torch import nn

from dpcompress.blueprint import Blueprint, Span
from dpcompress.errors import UsageError
from dpcompress.files import canonical_json, digest
from dpcompress.importance.entries import entries
from dpcompress.importance.finetune import Finetune
from dpcompress.importance.fit import Fit
from dpcompress.importance.journal import Journal
from dpcompress.importance.protocol import Entry, Estimator, Job
from dpcompress.importance.values import extend, normalise
from dpcompress.models import weights_digest
from dpcompress.progress import Progress, silent
from dpcompress.settings import Metric, Scoring
from dpcompress.tables import ImportanceTable
from dpcompress.training import Data, deterministic, state_digest

Executor = Literal["local", "ray"]
Scores = list[dict[str, float]]


def score(
    model: nn.Module,
    blueprint: Blueprint,
    data: Data,
    *,
    estimator: Estimator | None = None,
    spans: Iterable[Span] | None = None,
    metric: Metric = "loss",
    alpha: float | None = None,
    executor: Executor = "local",
    workers: int | None = None,
    journal: Path | None = None,
    progress: Progress = silent,
) -> ImportanceTable:
    """The final importance table of a trained network: scored, normalised, extended.

    What is said of an entry is deterministic in (weights, blueprint, data, estimator,
    entry), each job runs on one thread; so the table does not depend on `executor` and
    `workers`, on order, or on how often the run was killed and called again with the
    same journal.

    Args:
        model: the trained original.
        estimator: default `Finetune()`.
        spans: which to score (default: all candidates; see `worth_scoring`).
        metric: whose change is the importance: "accuracy" as published, "loss", the
            fall in held-out cross-entropy, which is finer on few images, or "logits",
            how far the outputs move from the original's, where the estimator says so.
        alpha: of the normalisation (default: the estimator's own).
        executor: "local" runs processes on this machine, "ray" a Ray cluster's (or one
            that is started here), with one GPU each where it has some.
        workers: processes (default: one per core, or one where there is a GPU).
        journal: file of finished entries; they are found again by digest.
        progress: called after every job.

    Raises:
        UsageError: a metric that the estimator does not have.
        MissingPackage: Ray is asked for but not installed.
        BadInput: classes that do not match, unreadable images or journal.
    """
    estimator = estimator or Finetune()
    if metric not in estimator.metrics:
        name = type(estimator).__name__.lower()
        raise UsageError(
            f"The estimator {name} has no metric {metric}.",
            f"Choose {' or '.join(estimator.metrics)}.",
        )
    context = {
        "model": state_digest(model),
        "blueprint": blueprint.digest,
        "data": data.digest,
        "estimator": estimator.identity,
    }
    found = entries(blueprint, spans, free=estimator.free_activations)
    wanted: list[Entry | None] = [None, *found]
    keys = {entry: digest([context, entry]) for entry in wanted}
    book = Journal(journal)
    missing = [entry for entry in wanted if keys[entry] not in book.results]
    done = len(wanted) - len(missing)
    progress(done, len(wanted))
    call = partial(_score, estimator, model, blueprint, data)
    run = _run_locally if executor == "local" else _run_on_ray
    for job, scores in run(call, estimator.jobs(missing), workers, _foreign(model)):
        for entry, metrics in zip(job, scores, strict=True):
            book.add(keys[entry], metrics, entry=entry)
        done += len(job)
        progress(done, len(wanted), _name(job[-1]))
    book.settle()
    original = book.results[keys[None]]
    sign = 1.0 if metric == "accuracy" else -1.0
    rows = [
        {
            **entry._asdict(),
            "importance": sign * (book.results[keys[entry]][metric] - original[metric]),
            **book.results[keys[entry]],
        }
        for entry in wanted
        if entry is not None
    ]
    alpha = estimator.alpha if alpha is None else alpha
    frame, mean = normalise(pd.DataFrame(rows), alpha)
    header = {
        "blueprint": blueprint.digest,
        "input": "x".join(map(str, blueprint.input)),
        "model": context["model"],
        "original": weights_digest(model.state_dict()),
        "data": data.digest,
        "heldout_images": len(data.heldout),
        "estimator": canonical_json(estimator.identity),
        "metric": metric,
        "alpha": alpha,
        "mean": mean,
        **{f"original_{name}": value for name, value in original.items()},
    }
    return ImportanceTable(extend(frame), {k: str(v) for k, v in header.items()})


def estimator_of(scoring: Scoring) -> Estimator:
    """The estimator that these settings describe."""
    if scoring.estimator == "fit":
        return Fit(images=scoring.images, seed=scoring.recipe.seed)
    return Finetune(scoring.recipe)


def _score(
    estimator: Estimator, model: nn.Module, blueprint: Blueprint, data: Data, job: Job
) -> tuple[Job, Scores]:
    with deterministic(threads=1):
        return job, estimator(model, blueprint, data, job)


def _run_locally(
    call: Callable[[Job], tuple[Job, Scores]],
    jobs: list[Job],
    workers: int | None,
    foreign: list[ModuleType],
) -> Iterator[tuple[Job, Scores]]:
    """Results as they come; one worker means this process.

    foreign: modules that the workers cannot import by name.
    """
    if workers is None:
        workers = 1 if torch.cuda.is_available() else joblib.cpu_count()
    workers = max(1, min(workers, len(jobs)))
    with (
        _by_value(foreign),
        joblib.parallel_config(
            "loky" if workers > 1 else "sequential",
            # Images in memory reach the workers as one memory-mapped file.
            **({"inner_max_num_threads": 1, "mmap_mode": "c"} if workers > 1 else {}),
        ),
    ):
        parallel = joblib.Parallel(n_jobs=workers, return_as="generator_unordered")
        yield from parallel(joblib.delayed(call)(job) for job in jobs)


def _run_on_ray(
    call: Callable[[Job], tuple[Job, Scores]],
    jobs: list[Job],
    workers: int | None,
    foreign: list[ModuleType],
) -> Iterator[tuple[Job, Scores]]:
    from dpcompress.importance.on_ray import run_on_ray

    return run_on_ray(call, jobs, workers, foreign)


def _foreign(model: nn.Module) -> list[ModuleType]:
    """Modules that the network is made of and a worker could not import: those of its
    classes whose files are not installed, and what was imported from beside them."""

    def importable(name: str) -> bool:
        top = name.partition(".")[0]
        spec = importlib.machinery.PathFinder.find_spec(top)
        return spec is not None or top in ("__main__", "__mp_main__")  # sent anyway

    names = {type(module).__module__ for module in model.modules()} & sys.modules.keys()
    files = {name: _file(sys.modules[name]) for name in names if not importable(name)}
    folders = {file.parent for file in files.values() if file}
    beside = {
        name
        for name, module in list(sys.modules.items())
        if (file := _file(module)) and folders & {*file.parents} and not importable(name)
    }
    return [sys.modules[name] for name in sorted(files.keys() | beside)]


def _file(module: ModuleType) -> Path | None:
    file = getattr(module, "__file__", None)
    return Path(file) if file else None


@contextmanager
def _by_value(foreign: list[ModuleType]) -> Iterator[None]:
    """Send these modules' classes along with the jobs."""
    for module in foreign:
        cloudpickle.register_pickle_by_value(module)
    try:
        yield
    finally:
        for module in foreign:
            cloudpickle.unregister_pickle_by_value(module)


def _name(entry: Entry | None) -> str:
    return "original" if entry is None else f"layers {entry.start + 1}..{entry.stop}"
