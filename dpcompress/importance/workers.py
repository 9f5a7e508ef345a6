"""The processes that score chunks of entries: this one, others here, or those of Ray."""

from __future__ import annotations

import importlib.machinery
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any
from uuid import uuid4

import cloudpickle
import joblib
import torch
from torch import nn

from dpcompress.blueprint import Blueprint
from dpcompress.importance.protocol import Chunk, Estimator, Scores
from dpcompress.settings import Executor
from dpcompress.training import Data, deterministic

Scored = tuple[Chunk, list[Scores]]

# The states that estimators have prepared in this process, by name of the scorer.
_STATES: dict[str, Any] = {}


@dataclass(frozen=True)
class Scorer:
    """Scores a chunk of entries, on one thread of torch.

    The estimator is prepared once in each process.
    """

    estimator: Estimator
    model: nn.Module
    blueprint: Blueprint
    data: Data
    name: str = field(default_factory=lambda: uuid4().hex)

    def __call__(self, chunk: Chunk) -> Scored:
        """Return the chunk and the scores of its entries."""
        with deterministic(threads=1):
            if self.name not in _STATES:
                _STATES.clear()
                prepared = self.estimator.prepare(self.model, self.blueprint, self.data)
                _STATES[self.name] = prepared
            return chunk, self.estimator.score(_STATES[self.name], chunk)


def run(
    scorer: Scorer, chunks: list[Chunk], executor: Executor, workers: int | None
) -> Iterator[Scored]:
    """Yield the scores of all chunks as they are finished.

    Args:
        workers: processes; None for one per core, or one where there is a GPU (Ray: one
            per GPU).

    Raises:
        MissingPackage: Ray is asked for but not installed.
        Exception: whatever the estimator raises.
    """
    foreign = foreign_modules(scorer.model)
    if executor == "ray":
        from dpcompress.importance.on_ray import run_on_ray

        yield from run_on_ray(scorer, chunks, workers, foreign)
        return
    try:
        yield from _run_locally(scorer, chunks, workers, foreign)
    finally:
        _STATES.pop(scorer.name, None)


def _run_locally(
    scorer: Scorer, chunks: list[Chunk], workers: int | None, foreign: list[ModuleType]
) -> Iterator[Scored]:
    """Yield the scores of all chunks; one worker means this process.

    foreign: modules that the workers cannot import by name.
    """
    if workers is None:
        workers = 1 if torch.cuda.is_available() else joblib.cpu_count()
    workers = max(1, min(workers, len(chunks)))
    backend: dict[str, Any] = {"backend": "sequential"}
    if workers > 1:
        # Images in memory reach the workers as one memory-mapped file.
        backend = {"backend": "loky", "inner_max_num_threads": 1, "mmap_mode": "c"}
    with _by_value(foreign), joblib.parallel_config(**backend):
        parallel = joblib.Parallel(n_jobs=workers, return_as="generator_unordered")
        yield from parallel(joblib.delayed(scorer)(chunk) for chunk in chunks)


def foreign_modules(model: nn.Module) -> list[ModuleType]:
    """List the modules that the network needs and a worker could not import.

    These are the modules of its classes, if their files are not installed, and what was
    imported from the same folders.
    """

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
    """Let pickles hold what these modules define, not their names."""
    for module in foreign:
        cloudpickle.register_pickle_by_value(module)
    try:
        yield
    finally:
        for module in foreign:
            cloudpickle.unregister_pickle_by_value(module)
