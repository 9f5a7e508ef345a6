"""Seeds that depend on names, not on order, and torch's deterministic mode."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from dpcompress.files import digest


def seed_of(*parts: object) -> int:
    """Hash JSON-like parts, such as (recipe.seed, "order", 3), to a seed below 2**63."""
    return int(digest(list(parts)), 16) >> 1


@contextmanager
def seeded(*parts: object) -> Iterator[None]:
    """Start torch's CPU generator at `seed_of(*parts)`, and put it back afterwards."""
    with torch.random.fork_rng(devices=[]):
        # torch.manual_seed takes 100 times as long: it asks every kind of device.
        torch.default_generator.manual_seed(seed_of(*parts))
        yield


@contextmanager
def deterministic(threads: int | None = None) -> Iterator[int]:
    """Use deterministic kernels on `threads` threads (default: as set); yield the number.

    Sums over threads are rounded in the order of the threads, so bits are equal only on
    equal thread counts. Kernels without a deterministic form (a few on CUDA) still run.
    """
    before = (
        torch.get_num_threads(),
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    torch.set_num_threads(threads or before[0])
    # Filling all new tensors with NaN takes time, and only finds bugs.
    memory: Any = torch.utils.deterministic
    filled, memory.fill_uninitialized_memory = memory.fill_uninitialized_memory, False
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*does not have a deterministic.*")
            yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before[0])
        memory.fill_uninitialized_memory = filled
        torch.use_deterministic_algorithms(before[1], warn_only=before[2])
