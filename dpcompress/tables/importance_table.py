"""The importance table."""

from __future__ import annotations

from functools import cached_property
from typing import Any, ClassVar

import pandas as pd

from dpcompress.tables.keys import ScoreKey
from dpcompress.tables.table import Table


class ImportanceTable(Table):
    """The importances I[i,j,a,b] of Kim et al. 2023, normalised and extended.

    Columns: start, stop, act_start (a), act_stop (b), importance, optionally way ("merge"
    where the column is absent), and free metrics.
    Flag 0 is for positions that have no activation in the original network.
    """

    KEYS = ScoreKey._fields
    VALUE = "importance"
    NUMERIC = ("start", "stop", "act_start", "act_stop", "importance")
    ALIASES: ClassVar[dict[str, str]] = {
        "st": "start",
        "end": "stop",
        "st_act": "act_start",
        "end_act": "act_stop",
        "imp": "importance",
    }

    def _checked(self, frame: pd.DataFrame) -> dict[str, Any]:
        known = super()._checked(frame)
        for column in ("act_start", "act_stop"):
            known[column] = self._flags(frame, column)
        known["importance"] = self._numbers(frame, "importance")
        return known

    def scores(self) -> dict[ScoreKey, float]:
        """Return the importances by key, in order."""
        flags = (map(bool, self._cells(name)) for name in ("act_start", "act_stop"))
        spans = map(self._cells, ("start", "stop", "way"))
        rows = zip(*spans, *flags, self._cells("importance"), strict=True)
        return {ScoreKey(*key): value for *key, value in rows}

    @cached_property
    def linear_positions(self) -> frozenset[int]:
        """The positions without an activation in the original: those with a flag of 0."""
        frame = self.frame
        stops = frame["stop"][frame["act_stop"] == 0]
        starts = frame["start"][(frame["act_start"] == 0) & (frame["start"] > 0)]
        return frozenset(map(int, {*stops, *starts}))
