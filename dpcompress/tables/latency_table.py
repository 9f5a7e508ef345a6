"""The latency table."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from dpcompress.blueprint import Blueprint, Limits, Span
from dpcompress.errors import BadTable, UsageError
from dpcompress.runner.target import Target
from dpcompress.tables.keys import MERGE, Key
from dpcompress.tables.table import Table


class LatencyTable(Table):
    """The latencies T[i,j] of Kim et al. 2023: one row per measured span and way.

    Columns: start, stop, latency_ms, spread_ms (standard deviation or half-width, same
    unit), op (key of the measured op, "" if unknown), samples (0 if unknown), optionally
    way ("merge" where the column is absent) and act_stop: 1 or 0 where the row holds only
    with or without the activation that closes the span, blank where it holds for both.
    """

    KEYS = Key._fields
    VALUE = "latency_ms"
    OPTIONAL = ("way", "act_stop")
    NUMERIC = ("start", "stop", "act_stop", "latency_ms", "spread_ms", "samples")
    TEXT = ("way", "op")
    ALIASES: ClassVar[dict[str, str]] = {
        "st": "start",
        "end": "stop",
        "time": "latency_ms",
        "stdev": "spread_ms",
    }

    def _checked(self, frame: pd.DataFrame) -> dict[str, Any]:
        known = super()._checked(frame)
        for column in ("latency_ms", "spread_ms"):
            times = np.zeros(len(frame))
            if column in frame:
                times = self._numbers(frame, column)
            self._refuse(frame, times < 0, column, "a time is not negative")
            known[column] = times
        known["op"] = frame["op"].astype(str) if "op" in frame else ""
        known["samples"] = self._whole(frame, "samples") if "samples" in frame else 0
        self._refuse(frame, known["samples"] < 0, "samples", "a count is not negative")
        if "act_stop" in frame:
            known["act_stop"] = self._closing(frame, known)
        return known

    def _closing(self, frame: pd.DataFrame, known: dict[str, Any]) -> pd.Series[Any]:
        """Check `act_stop`: no row of a span holds for both flags if another holds for
        one of them."""
        said = frame["act_stop"].notna().to_numpy()
        names = [name for name in ("start", "stop", "way") if name in known]
        spans = pd.MultiIndex.from_arrays([known[name] for name in names])
        clash = said & spans.isin(spans[~said])
        fault = "another row of the span holds for both flags"
        self._refuse(frame, clash, "act_stop", fault)
        flags = pd.Series(pd.NA, frame.index, dtype="Int64")
        flags[said] = self._flags(frame[said], "act_stop")
        return flags

    def times(self) -> dict[Key, float]:
        """Return milliseconds by key, in order; a row for both flags gives two keys."""
        flags: list[tuple[bool, ...]] = [(False, True)] * len(self.frame)
        if "act_stop" in self.frame:
            said = self.frame["act_stop"]
            flags = [(False, True) if pd.isna(b) else (bool(b),) for b in said]
        columns = ("start", "stop", "way", "latency_ms")
        rows = zip(*map(self._cells, columns), flags, strict=True)
        return {
            Key(start, stop, way, flag): ms
            for start, stop, way, ms, both in rows
            for flag in both
        }

    def span_times(self, blueprint: Blueprint) -> dict[Span, float]:
        """Return the milliseconds of every merged span, in order, closed by an activation
        where the original network `blueprint` has one."""
        return {
            key.span: ms
            for key, ms in self.times().items()
            if key.way == MERGE and key.act_stop == blueprint.has_activation(key.stop)
        }

    @property
    def limits(self) -> Limits | None:
        """The limits that made its spans candidates, None if unknown."""
        known = {key: self.header.get(key) for key in Limits.model_fields}
        return None if None in known.values() else Limits.model_validate(known)

    @property
    def target(self) -> Target:
        """The engine, device and settings that the table was measured with.

        Raises:
            BadTable: the header does not say, as in tables of the published layout.
        """
        header = self.header
        try:
            return Target(
                engine=header["engine"],
                device="cuda" if header["device"].startswith("cuda:") else None,
                precision=header["precision"],
                threads=int(header["threads"]),
                batch=int(header["batch"]),
            )
        except (KeyError, ValueError, UsageError) as error:
            raise BadTable(
                f"the header does not say what it was measured with ({error}).",
                "Make the table with: dpcompress profile MODEL -o T.csv",
                path=self.source,
            ) from error

    @property
    def fixed_ms(self) -> float:
        """The time that no plan changes (pooling, classifier, launches), 0 if unknown."""
        return float(self.header.get("fixed_ms", 0.0))

    @property
    def e2e_ms(self) -> float | None:
        """The time of the original network, measured end to end; None if unknown."""
        text = self.header.get("e2e_ms")
        return None if text is None else float(text)

    @property
    def single_layers_ms(self) -> float | None:
        """The sum over the single layers, each with an activation (in the header: as in
        the original); None if one is missing."""
        single = {k.stop: ms for k, ms in self.times().items() if _is_layer(k)}
        return math.fsum(single.values()) if len(single) == self.depth else None

    @property
    def original_ms(self) -> float | None:
        """The time that percentages and speed-ups refer to: e2e_ms, or else fixed_ms plus
        the single layers; None if a single layer is missing too."""
        if self.e2e_ms is not None:
            return self.e2e_ms
        single = self.single_layers_ms
        return None if single is None else self.fixed_ms + single


def _is_layer(key: Key) -> bool:
    return key.stop - key.start == 1 and key.way == MERGE
