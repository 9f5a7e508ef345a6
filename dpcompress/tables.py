"""Latency and importance tables: validated CSV files with provenance ↔ frozen objects.

A file is `# key: value` lines, then a CSV header, then rows. Keys and columns that this
version does not know are preserved. The column layouts that were published with Kim et
al. 2023 are read as well.
"""

from __future__ import annotations

import csv
import io
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dpcompress.blueprint import Blueprint, Limits, Span
from dpcompress.errors import BadTable, UsageError
from dpcompress.files import digest, write_text
from dpcompress.runner.target import Target

Floats = NDArray[np.float64]

VERSION = "1"
MERGE = "merge"
MAX_BYTES = 512 * 2**20
MAX_POSITION = 100_000

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_WHOLE = re.compile(r"[+-]?\d{1,18}(\.0*)?", re.ASCII)
_NOT_FINITE = re.compile(r"[+-]?(nan|inf|infinity)", re.IGNORECASE)
_WAY = re.compile(r"[a-z][a-z0-9_.:/-]{0,63}", re.ASCII)


class Key(NamedTuple):
    """What is timed: layers start+1 .. stop, run in one way, with an activation at their
    end or without."""

    start: int
    stop: int
    way: str
    act_stop: bool

    @property
    def span(self) -> Span:
        return Span(self.start, self.stop)


class ScoreKey(NamedTuple):
    """What is scored: layers start+1 .. stop, run in one way, with an activation before
    them and at their end, or without."""

    start: int
    stop: int
    way: str
    act_start: bool
    act_stop: bool

    @property
    def span(self) -> Span:
        return Span(self.start, self.stop)

    @property
    def key(self) -> Key:
        """The key of the latency that belongs to it."""
        return Key(self.start, self.stop, self.way, self.act_stop)


@dataclass(frozen=True, eq=False)
class _Table:
    """A sorted, validated frame and its header; `source` is named in errors.

    Raises:
        BadTable: any fault, with line and column (line = row of the frame, counted
            from 1, where the table does not come from a file).
    """

    frame: pd.DataFrame
    header: Mapping[str, str] = field(default_factory=dict)
    source: str = "table"

    KEYS: ClassVar[tuple[str, ...]]
    """Columns that identify a row."""
    VALUE: ClassVar[str]
    """The column that a solver reads."""
    ALIASES: ClassVar[dict[str, str]]
    """Columns of the published layout → ours."""
    OPTIONAL: ClassVar[tuple[str, ...]] = ("way",)
    NUMERIC: ClassVar[tuple[str, ...]]
    """Columns in which a cell that is no number is a fault."""
    TEXT: ClassVar[tuple[str, ...]] = ("way",)
    """Columns that stay text whatever their cells look like."""
    IGNORED: ClassVar[frozenset[str]] = frozenset({"", "id", "breaks"})

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
        known = {*checked, "way"}  # which is not kept where all rows merge
        rest = {str(name): frame[name] for name in frame if name not in known}
        frame = pd.DataFrame(checked | rest, index=frame.index)
        keys = [key for key in self.KEYS if key in frame]
        self._refuse(frame, frame.duplicated(keys), keys[-1], "the row is there twice")
        frame = frame.sort_values(keys, kind="stable", na_position="first")
        self._set("frame", frame.reset_index(drop=True))

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    def _checked(self, frame: pd.DataFrame) -> dict[str, Any]:
        """The known columns, in the order of the file."""
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
        return _bad(self.source, fault, row, column)

    def _cells(self, column: str) -> list[Any]:
        """The cells of a column; those of `way` also where it is not written."""
        if column == "way" and "way" not in self.frame:
            return [MERGE] * len(self.frame)
        cells: list[Any] = self.frame[column].tolist()
        return cells

    @property
    def depth(self) -> int:
        """L, the number of layers: the last position of any span."""
        return int(self.frame["stop"].max())

    @property
    def blueprint(self) -> str:
        """Digest of the Blueprint that the table is for, "" if it does not say."""
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
        """(C, H, W) of the network's input, None if the header does not say."""
        text = self.header.get("input")
        if text is None:
            return None
        channels, height, width = map(int, text.split("x"))
        return channels, height, width

    @cached_property
    def digest(self) -> str:
        """Identifies header and rows: equal tables, and only those, agree."""
        return digest(self.to_csv().encode())

    def to_csv(self) -> str:
        """The file's text; reading it back gives an equal table."""
        text = io.StringIO()
        for key, value in self.header.items():
            text.write(f"# {key}: {value}\n")
        self.frame.to_csv(text, index=False, lineterminator="\n")
        return text.getvalue()

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write atomically."""
        write_text(path, self.to_csv())

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Self:
        """Read what `write` wrote, or the published layout.

        Raises:
            BadTable: not such a file; says line and column.
        """
        source = str(path)
        header, columns, rows, lines = _parse(Path(path))
        if set(cls.ALIASES) <= set(columns):
            names = [cls.ALIASES.get(c, c) for c in columns]
            used = [i for i, c in enumerate(columns) if c not in cls.IGNORED]
        else:
            names, used = columns, list(range(len(columns)))
        for i in used:
            if names[i] in [names[j] for j in used if j < i]:
                raise _bad(source, "the column is there twice", column=names[i])
        index = pd.Index(lines, name="line")
        data = {}
        for i in used:
            cells = [row[i] for row in rows]
            data[names[i]] = cls._column(names[i], cells, lines, source)
        return cls(pd.DataFrame(data, index=index), header, source)

    @classmethod
    def _column(
        cls, name: str, cells: list[str], lines: list[int], source: str
    ) -> list[Any] | pd.Series:
        """Cells as numbers where the column must hold some, or where all look so."""
        if name in cls.TEXT:
            return cells
        if name in cls.NUMERIC:
            for line, cell in zip(lines, cells, strict=True):
                if cell == "" and name in cls.OPTIONAL:
                    continue
                if not _NUMBER.fullmatch(cell):
                    fault = "not finite" if _NOT_FINITE.fullmatch(cell) else "no number"
                    raise _bad(source, f"{cell[:40]!r} is {fault}", line, name)
            return [float(c) if c else math.nan for c in cells]
        if all(_WHOLE.fullmatch(c) and "." not in c for c in cells):
            return [int(c) for c in cells]
        if all(not c or _NUMBER.fullmatch(c) for c in cells) and any(cells):
            return [float(c) if c else math.nan for c in cells]
        return cells


class LatencyTable(_Table):
    """T[i,j] of Kim et al. 2023: one row per measured span and way.

    Columns: start, stop, latency_ms, spread_ms (standard deviation or half-width, same
    unit), op (key of the measured op, "" if unknown), samples (0 if unknown), optionally
    way ("merge" where the column is absent) and act_stop: 1 or 0 where the row holds only
    with or without the activation that closes the span, blank where it holds for both.
    """

    KEYS = ("start", "stop", "way", "act_stop")
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
        """Milliseconds by key, in order; a row for both flags gives two keys."""
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
        """Milliseconds of every merged span, in order, closed by an activation where the
        original network `blueprint` has one."""
        return {
            key.span: ms
            for key, ms in self.times().items()
            if key.way == MERGE and key.act_stop == blueprint.has_activation(key.stop)
        }

    @property
    def limits(self) -> Limits | None:
        """Those that made its spans candidates, None if unknown."""
        known = {key: self.header.get(key) for key in Limits.model_fields}
        return None if None in known.values() else Limits.model_validate(known)

    @property
    def target(self) -> Target:
        """What the table was measured on.

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
        """What no plan can change (pooling, classifier, launches), 0 if unknown."""
        return float(self.header.get("fixed_ms", 0.0))

    @property
    def e2e_ms(self) -> float | None:
        """The original network, measured end to end; None if unknown."""
        text = self.header.get("e2e_ms")
        return None if text is None else float(text)

    @property
    def single_layers_ms(self) -> float | None:
        """Sum over the single layers, with activation where the table distinguishes;
        None if one is missing."""
        single = {k.stop: ms for k, ms in self.times().items() if _is_layer(k)}
        return math.fsum(single.values()) if len(single) == self.depth else None

    @property
    def original_ms(self) -> float | None:
        """What percentages and speed-ups refer to: e2e_ms, or else fixed_ms plus the
        single layers; None if a single layer is missing too."""
        if self.e2e_ms is not None:
            return self.e2e_ms
        single = self.single_layers_ms
        return None if single is None else self.fixed_ms + single


class ImportanceTable(_Table):
    """I[i,j,a,b] of Kim et al. 2023, final: normalised and extended.

    Columns: start, stop, act_start (a), act_stop (b), importance, optionally way ("merge"
    where the column is absent), and free metrics.
    Flag 0 is for positions that have no activation in the original network.
    """

    KEYS = ("start", "stop", "way", "act_start", "act_stop")
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
        """Importances by key, in order."""
        flags = (map(bool, self._cells(name)) for name in ("act_start", "act_stop"))
        spans = map(self._cells, ("start", "stop", "way"))
        rows = zip(*spans, *flags, self._cells("importance"), strict=True)
        return {ScoreKey(*key): value for *key, value in rows}

    @cached_property
    def linear_positions(self) -> frozenset[int]:
        """Positions without an activation in the original: those with a flag of 0."""
        frame = self.frame
        stops = frame["stop"][frame["act_stop"] == 0]
        starts = frame["start"][(frame["act_start"] == 0) & (frame["start"] > 0)]
        return frozenset(map(int, {*stops, *starts}))


def _is_layer(key: Key) -> bool:
    return key.stop - key.start == 1 and key.way == MERGE


def _bad(
    path: object, fault: str, row: int | None = None, column: str | None = None
) -> BadTable:
    remedy = "Correct the file or make it again."
    return BadTable(f"{fault}.", remedy, path=path, row=row, column=column)


def _checked_header(header: Mapping[str, object], source: str) -> Mapping[str, str]:
    known = {"version": VERSION} | {str(k).strip(): _text(v) for k, v in header.items()}
    for key, value in known.items():
        if not key or ":" in key or len((key + value).splitlines()) != 1:
            raise _bad(source, f"header {key!r} is not one line")
    if known["version"] != VERSION:
        fault = f"format version {known['version'][:20]} is not {VERSION}"
        raise _bad(source, fault, column="version")
    for key in ("e2e_ms", "fixed_ms", *Limits.model_fields):
        text = known.get(key, "0")
        if not _NUMBER.fullmatch(text) or not 0 <= float(text) < math.inf:
            raise _bad(source, f"{text[:40]!r} is not a number from 0 on", column=key)
    size = known.get("input", "1x1x1")
    if not re.fullmatch(r"(\d{1,9}x){2}\d{1,9}", size, re.ASCII):
        raise _bad(source, f"{size[:40]!r} is not CxHxW", column="input")
    return MappingProxyType(known)


def _text(value: object) -> str:
    if isinstance(value, tuple | list):
        return "x".join(map(str, value))
    return str(value).strip()


def _parse(path: Path) -> tuple[dict[str, str], list[str], list[list[str]], list[int]]:
    """Header, column names, rows of cells, and the line that each row is on."""
    body = io.StringIO(_read_text(path), newline="")
    header: dict[str, str] = {}
    skipped = 0
    while (place := body.tell(), line := body.readline())[1].startswith("#"):
        skipped += 1
        key, colon, value = line[1:].partition(":")
        key = key.strip()
        if not colon or not key:
            raise _bad(path, "the line is not `# key: value`", skipped)
        if key in header:
            raise _bad(path, f"the key {key!r} is there twice", skipped)
        header[key] = value.strip()
    body.seek(place)
    reader = csv.reader(body, strict=True)
    filled: list[list[str]] = []
    lines: list[int] = []
    try:
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            filled.append([cell.strip() for cell in cells])
            lines.append(skipped + reader.line_num)
            if len(cells) != len(filled[0]):
                fault = f"{len(cells)} cells under {len(filled[0])} columns"
                raise _bad(path, fault, lines[-1])
    except csv.Error as error:
        raise _bad(path, f"not CSV: {error}", skipped + reader.line_num) from error
    if not filled:
        raise _bad(path, "the file is empty")
    return header, filled[0], filled[1:], lines[1:]


def _read_text(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise _bad(path, f"larger than {MAX_BYTES >> 20} MiB")
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        reason = f"cannot be read: {error.strerror or error}."
        raise BadTable(reason, "Check the path.", path=path) from error
    except UnicodeDecodeError as error:
        raise _bad(path, "not UTF-8 text") from error
