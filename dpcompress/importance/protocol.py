"""The protocol of importance estimators."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from torch import nn

from dpcompress.blueprint import Blueprint, Span
from dpcompress.training import Data

Scores = dict[str, float]


class Entry(NamedTuple):
    """I[i,j,a,b] of Kim et al. 2023: the activations strictly between `start` and `stop`
    are gone; the flags say whether an activation stands at `start` and at `stop`."""

    start: int
    stop: int
    act_start: int
    act_stop: int

    @property
    def span(self) -> Span:
        """The layers start+1 .. stop."""
        return Span(self.start, self.stop)


# Entries that one process scores together; None is the original network itself.
Chunk = tuple[Entry | None, ...]


class Estimator(Protocol):
    """An estimator says what a network is worth with one entry applied to it.

    The law: what is said of an entry does not depend on its company. For every state that
    `prepare` returns for the same arguments, and whatever was scored with it before,
    `score(state, entries) == [score(state, [entry])[0] for entry in entries]`. So a table
    is the same for any chunks, order, number of processes and interruptions.
    """

    @property
    def free_activations(self) -> bool:
        """Whether the estimator can tell what an added activation is worth; if not,
        entries with one are left out of the table."""
        ...

    @property
    def alpha(self) -> float:
        """The shift of `normalise` where none is asked for."""
        ...

    @property
    def metrics(self) -> tuple[str, ...]:
        """The names of the scores whose change can be the importance."""
        ...

    @property
    def settings(self) -> dict[str, Any]:
        """The name and all settings, as JSON: estimators of equal settings agree."""
        ...

    def chunks(self, entries: Sequence[Entry | None]) -> list[Chunk]:
        """Part `entries` into chunks, so that entries that share work are together."""
        ...

    def prepare(self, model: nn.Module, blueprint: Blueprint, data: Data) -> Any:
        """Do what all entries share; called once in each process.

        Args:
            model: the trained original, which neither this nor `score` changes.

        Returns:
            Whatever `score` needs.
        """
        ...

    def score(self, state: Any, entries: Sequence[Entry | None]) -> list[Scores]:
        """Return the scores of each entry on data.heldout, `metrics` among them."""
        ...
