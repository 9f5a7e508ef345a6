"""The protocol of importance estimators."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from torch import nn

from dpcompress.blueprint import Blueprint
from dpcompress.tables import ScoreKey
from dpcompress.training import Data

Scores = dict[str, float]


# Entries of the importance table that one process scores together; None is the original
# network itself.
Chunk = tuple[ScoreKey | None, ...]


class Estimator(Protocol):
    """Rates a network that has one entry of the importance table applied to it.

    The entry I[i,j,a,b] of Kim et al. 2023 removes the activations strictly between the
    positions i and j; its flags a and b say whether an activation stands at i and at j.

    The law: the scores of an entry do not depend on the other entries. For every state
    that `prepare` returns for the same arguments, and whatever was scored with it before,
    `score(state, entries) == [score(state, [entry])[0] for entry in entries]`. So a table
    is the same for any chunks, order, number of processes and interruptions.
    """

    @property
    def free_activations(self) -> bool:
        """Whether the estimator can tell what an added activation is worth.

        If not, entries with one are left out of the table.
        """
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

    def chunks(self, entries: Sequence[ScoreKey | None]) -> list[Chunk]:
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

    def score(self, state: Any, entries: Sequence[ScoreKey | None]) -> list[Scores]:
        """Return the scores of each entry on data.heldout, `metrics` among them."""
        ...
