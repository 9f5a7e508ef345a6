"""The base of both tables: a checked frame and its header, read and written."""

from __future__ import annotations

import io
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dpcompress.blueprint import Limits
from dpcompress.errors import BadTable
from dpcompress.files import digest, write_text
from dpcompress.tables.csv_file import fault_in, read_csv_file
from dpcompress.tables.keys import MERGE

Floats = NDArray[np.float64]

VERSION = "1"
MAX_POSITION = 100_000

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_WHOLE = re.compile(r"[+-]?\d{1,18}(\.0*)?", re.ASCII)
_NOT_FINITE = re.compile(r"[+-]?(nan|inf|infinity)", re.IGNORECASE)
_WAY = re.compile(r"[a-z][a-z0-9_.:/-]{0,63}", re.ASCII)


@dataclass(frozen=True, eq=False)
class Table:
    """The sorted, validated frame of a table, and its header.

    source: the name of the file, for errors.

    Raises:
        BadTable: any fault, with line and column (line = row of the frame, counted
            from 1, where the table does not come from a file).
    """

    frame: pd.DataFrame
    header: Mapping[str, str] = field(default_factory=dict)
    source: str = "table"

    KEYS: ClassVar[tuple[str, ...]]  # columns that identify a row
    VALUE: ClassVar[str]  # the column that a solver reads
    OPTIONAL: ClassVar[tuple[str, ...]] = ("way",)
    NUMERIC: ClassVar[tuple[str, ...]]  # where a cell that is no number is a fault
    TEXT: ClassVar[tuple[str, ...]] = ("way",)  # where cells stay text
    ALIASES: ClassVar[dict[str, str]]  # columns of the published layout → ours
    IGNORED: ClassVar[frozenset[str]] = frozenset({"", "id", "breaks"})  # of that layout

    def __post_init__(self) -> None:
        self._set("header", _checked_header(self.header, self.source))
        frame = self.frame
        for column in (*self.KEYS, self.VALUE):
            if column not in frame and column not in self.OPTIONAL:
                there = ", ".join(map(str, frame))
                raise self._fault(f"the column is missing (there are: {there})", column)
        if not len(frame):
            raise self._fault("there are no rows")
        if frame.index.name != "line":
            frame = frame.set_axis(pd.RangeIndex(1, len(frame) + 1, name="line"))
        checked = self._checked(frame)
        known = {*checked, "way"}  # a `way` column is dropped where all rows merge
        rest = {str(name): frame[name] for name in frame if name not in known}
        frame = pd.DataFrame(checked | rest, index=frame.index)
        keys = [key for key in self.KEYS if key in frame]
        self._refuse(frame, frame.duplicated(keys), keys[-1], "the row is there twice")
        frame = frame.sort_values(keys, kind="stable", na_position="first")
        self._set("frame", frame.reset_index(drop=True))

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    def _checked(self, frame: pd.DataFrame) -> dict[str, Any]:
        """Check the known columns; returns them by name, in the order that files have."""
        start, stop = (self._whole(frame, column) for column in ("start", "stop"))
        for column, values in (("start", start), ("stop", stop)):
            outside = (values < 0) | (values > MAX_POSITION)
            fault = f"positions run from 0 to {MAX_POSITION}"
            self._refuse(frame, outside, column, fault)
        self._refuse(frame, stop <= start, "stop", "a span stops after its start")
        known: dict[str, Any] = {"start": start, "stop": stop}
        if "way" in frame:
            ways = frame["way"].tolist()
            strange = [not (isinstance(w, str) and _WAY.fullmatch(w)) for w in ways]
            self._refuse(frame, strange, "way", "a way is a name such as merge")
            if set(ways) != {MERGE}:
                known["way"] = ways
        return known

    def _numbers(self, frame: pd.DataFrame, column: str) -> Floats:
        values = pd.to_numeric(frame[column], errors="coerce")
        numbers: Floats = values.to_numpy(dtype=float, na_value=np.nan)
        self._refuse(frame, ~np.isfinite(numbers), column, "not a finite number")
        return numbers

    def _whole(self, frame: pd.DataFrame, column: str) -> NDArray[np.int64]:
        values = self._numbers(frame, column)
        strange = (values % 1 != 0) | (np.abs(values) > 2**53)
        self._refuse(frame, strange, column, "not a whole number of sensible size")
        return values.astype(np.int64)

    def _flags(self, frame: pd.DataFrame, column: str) -> NDArray[np.int64]:
        values = self._whole(frame, column)
        self._refuse(frame, (values != 0) & (values != 1), column, "a flag is 0 or 1")
        return values

    def _refuse(self, frame: pd.DataFrame, wrong: Any, column: str, fault: str) -> None:
        if np.any(wrong):
            raise self._fault(fault, column, int(frame.index[int(np.argmax(wrong))]))

    def _fault(
        self, fault: str, column: str | None = None, row: int | None = None
    ) -> BadTable:
        return fault_in(self.source, fault, row, column)

    def _cells(self, column: str) -> list[Any]:
        """List the cells of a column; an absent `way` is "merge" in every row."""
        if column == "way" and "way" not in self.frame:
            return [MERGE] * len(self.frame)
        cells: list[Any] = self.frame[column].tolist()
        return cells

    @property
    def depth(self) -> int:
        """The number of layers, L: the last position of any span."""
        return int(self.frame["stop"].max())

    @property
    def blueprint(self) -> str:
        """The digest of the Blueprint that the table is for, "" if it does not say."""
        return self.header.get("blueprint", "")

    def require(self, blueprint: str) -> None:
        """Raise BadTable unless the table is for the Blueprint with this digest."""
        if self.blueprint != blueprint:
            fault = (
                f"it is for another network or input size (blueprint "
                f"{self.blueprint or 'unknown'}, this one is {blueprint})."
            )
            remedy = "Make it again for this network, or give the --input that it is for."
            raise BadTable(fault, remedy, path=self.source, column="blueprint")

    @property
    def input(self) -> tuple[int, int, int] | None:
        """The (C, H, W) of the network's input, None if the header does not say."""
        text = self.header.get("input")
        if text is None:
            return None
        channels, height, width = map(int, text.split("x"))
        return channels, height, width

    @cached_property
    def digest(self) -> str:
        """Identify header and rows: equal tables, and only those, agree."""
        return digest(self.to_csv().encode())

    def to_csv(self) -> str:
        """Write the table as text; reading it back gives an equal table."""
        text = io.StringIO()
        for key, value in self.header.items():
            text.write(f"# {key}: {value}\n")
        self.frame.to_csv(text, index=False, lineterminator="\n")
        return text.getvalue()

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the table to a file, atomically."""
        write_text(path, self.to_csv())

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Self:
        """Read what `write` wrote, or the published layout.

        Raises:
            BadTable: not such a file; says line and column.
        """
        source, file = str(path), read_csv_file(Path(path))
        names, columns = file.columns, list(range(len(file.columns)))
        if set(cls.ALIASES) <= set(names):
            columns = [i for i in columns if names[i] not in cls.IGNORED]
            names = [cls.ALIASES.get(name, name) for name in names]
        data: dict[str, list[Any]] = {}
        for i in columns:
            if names[i] in data:
                raise fault_in(source, "the column is there twice", column=names[i])
            data[names[i]] = cls._column(names[i], file.column(i), file.lines, source)
        frame = pd.DataFrame(data, index=pd.Index(file.lines, name="line"))
        return cls(frame, file.header, source)

    @classmethod
    def _column(
        cls, name: str, cells: list[str], lines: list[int], source: str
    ) -> list[Any]:
        """Read cells as numbers where the column must hold some, or where all look so."""
        if name in cls.TEXT:
            return cells
        if name in cls.NUMERIC:
            for line, cell in zip(lines, cells, strict=True):
                if cell == "" and name in cls.OPTIONAL:
                    continue
                if not _NUMBER.fullmatch(cell):
                    fault = "not finite" if _NOT_FINITE.fullmatch(cell) else "no number"
                    raise fault_in(source, f"{cell[:40]!r} is {fault}", line, name)
            return _floats(cells)
        if all(_WHOLE.fullmatch(cell) and "." not in cell for cell in cells):
            return [int(cell) for cell in cells]
        if any(cells) and all(not cell or _NUMBER.fullmatch(cell) for cell in cells):
            return _floats(cells)
        return cells


def _floats(cells: list[str]) -> list[float]:
    return [float(cell) if cell else math.nan for cell in cells]


def _checked_header(header: Mapping[str, object], source: str) -> Mapping[str, str]:
    """Check the known keys; returns all of them with their values as text."""
    known = {"version": VERSION} | {str(k).strip(): _text(v) for k, v in header.items()}
    for key, value in known.items():
        if not key or ":" in key or len((key + value).splitlines()) != 1:
            raise fault_in(source, f"header {key!r} is not one line")
    if known["version"] != VERSION:
        fault = f"format version {known['version'][:20]} is not {VERSION}"
        raise fault_in(source, fault, column="version")
    for key in ("e2e_ms", "fixed_ms", *Limits.model_fields):
        text = known.get(key, "0")
        if not _NUMBER.fullmatch(text) or not 0 <= float(text) < math.inf:
            raise fault_in(source, f"{text[:40]!r} is not a number from 0 on", column=key)
    size = known.get("input", "1x1x1")
    if not re.fullmatch(r"(\d{1,9}x){2}\d{1,9}", size, re.ASCII):
        raise fault_in(source, f"{size[:40]!r} is not CxHxW", column="input")
    return MappingProxyType(known)


def _text(value: object) -> str:
    if isinstance(value, tuple | list):
        return "x".join(map(str, value))
    return str(value).strip()
