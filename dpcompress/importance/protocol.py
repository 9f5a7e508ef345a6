"""What an importance estimator is."""

from __future__ import annotations

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


class Estimator(Protocol):
    """Says what a network is worth with one entry applied; one estimator per file."""

    @property
    def identity(self) -> dict[str, Any]:
        """Name and all settings, as JSON: two estimators of equal identity agree."""
        ...

    def __call__(
        self, model: nn.Module, blueprint: Blueprint, data: Data, entry: Entry | None
    ) -> dict[str, float]:
        """Metrics on data.heldout, "accuracy" and "loss" among them.

        Deterministic in its arguments, whatever ran before. `model` is the trained
        original and is not changed; entry None asks for the original itself.
        """
        ...
