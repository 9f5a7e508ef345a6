"""What an importance estimator is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from torch import nn

from dpcompress.blueprint import Blueprint, Span
from dpcompress.training import Data


class Entry(NamedTuple):
    """I[i,j,a,b] of Kim et al. 2023: the activations strictly between `start` and `stop`
    are gone; the flags say whether an activation stands at `start` and at `stop`."""

    start: int
    stop: int
    act_start: int
    act_stop: int

    @property
    def span(self) -> Span:
        return Span(self.start, self.stop)


Job = tuple[Entry | None, ...]
"""Entries that are scored together; None is the original itself."""


class Estimator(Protocol):
    """Says what a network is worth with one entry applied; one estimator per file."""

    @property
    def free_activations(self) -> bool:
        """Whether it can tell what an added activation is worth; if not, entries with
        one are left out of the table."""
        ...

    @property
    def alpha(self) -> float:
        """Of the normalisation, where none is asked for: see `normalise`."""
        ...

    @property
    def metrics(self) -> tuple[str, ...]:
        """Those whose change can be the importance."""
        ...

    @property
    def identity(self) -> dict[str, Any]:
        """Name and all settings, as JSON: two estimators of equal identity agree."""
        ...

    def jobs(self, entries: Sequence[Entry | None]) -> list[Job]:
        """`entries`, parted into jobs: what shares work belongs together, but what is
        said of an entry does not depend on its company."""
        ...

    def __call__(
        self, model: nn.Module, blueprint: Blueprint, data: Data, job: Job
    ) -> list[dict[str, float]]:
        """Each entry's metrics on data.heldout, those of `metrics` among them.

        Deterministic in its arguments, whatever ran before. `model` is the trained
        original and is not changed.
        """
        ...
