"""Measurements that were made before, in one SQLite file, by the digest of what each
depends on."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from dpcompress.errors import BadInput, BadTable
from dpcompress.files import canonical_json, digest, write_text
from dpcompress.runner import Measurement, Ratio
from dpcompress.runner.cache import cache_folder
from dpcompress.runner.results import NUMBERS, measurement_of

_VERSION = 1
_EXPORT = "dpcompress measurements 1"
_COLUMNS = ("subject", "engine", "batch", "date", *NUMBERS)


def default_path() -> Path:
    """The place of the user's own store: DPCOMPRESS_STORE, or a file in the platform's
    cache."""
    named = os.environ.get("DPCOMPRESS_STORE")
    if named:
        return Path(named)
    return Path(cache_folder()) / "measurements.sqlite"


def measurement_key(subject: str, identity: Mapping[str, str], batch: int) -> str:
    """The digest of what a time depends on: what was timed (the subject), on which engine
    (its identity), at which batch size."""
    return digest({"subject": subject, "engine": dict(identity), "batch": batch})


class Store:
    """Keeps each measurement as soon as it is put; a killed process loses none of them.

    Args:
        path: the file, made if it is missing; None keeps everything in memory.

    Raises:
        BadInput: the file is no store, is damaged, or cannot be written; so in every
            method.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        self.path = None if path is None else Path(path)
        try:
            if self.path is not None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(self.path or ":memory:", timeout=60)
            self._prepare()
        except (sqlite3.Error, OSError) as error:
            raise self._unusable(error) from error

    def _prepare(self) -> None:
        run = self._database.execute
        (version,) = run("PRAGMA user_version").fetchone()
        (tables,) = run("SELECT count(*) FROM sqlite_master").fetchone()
        if version != _VERSION and tables:
            raise sqlite3.DatabaseError("it holds something else")
        run("PRAGMA journal_mode = WAL")
        run("PRAGMA synchronous = NORMAL")
        with self._database:
            run(f"PRAGMA user_version = {_VERSION}")
            run(
                "CREATE TABLE IF NOT EXISTS measurements (key TEXT PRIMARY KEY,"
                " subject TEXT, engine TEXT, batch INTEGER, date TEXT,"
                " median_ms REAL, p90_ms REAL, spread_ms REAL, error_ms REAL,"
                " samples INTEGER, disturbed INTEGER) WITHOUT ROWID"
            )
            run("CREATE TABLE IF NOT EXISTS windows (key TEXT, ms REAL)")
            run("CREATE INDEX IF NOT EXISTS by_key ON windows (key)")
            run(
                "CREATE TABLE IF NOT EXISTS ratios (key TEXT PRIMARY KEY, subject TEXT,"
                " engine TEXT, batch INTEGER, date TEXT, median REAL, low REAL,"
                " high REAL, spread REAL) WITHOUT ROWID"
            )

    def get(
        self, subject: str, identity: Mapping[str, str], batch: int
    ) -> Measurement | None:
        """The finished measurement of a subject, without its samples; None if there is
        none."""
        columns = ", ".join(NUMBERS)
        query = f"SELECT {columns} FROM measurements WHERE key = ?"
        key = measurement_key(subject, identity, batch)
        with self._transaction() as database:
            row = database.execute(query, (key,)).fetchone()
        return None if row is None else Measurement(*row)

    def put(
        self,
        subject: str,
        identity: Mapping[str, str],
        batch: int,
        measurement: Measurement,
    ) -> None:
        """Keep a measurement; it replaces an earlier one of the same key."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        self._put([_row(subject, identity, batch, now, measurement)])

    def add_samples(
        self, samples_ms: Mapping[str, float], identity: Mapping[str, str], batch: int
    ) -> None:
        """Keep one more sample of each subject that is not finished; `put` drops them."""
        rows = [
            (measurement_key(subject, identity, batch), ms)
            for subject, ms in samples_ms.items()
        ]
        with self._transaction() as database:
            database.executemany("INSERT INTO windows VALUES (?, ?)", rows)

    def samples(
        self, subject: str, identity: Mapping[str, str], batch: int
    ) -> list[float]:
        """List the samples, in milliseconds, of a measurement that is not finished."""
        query = "SELECT ms FROM windows WHERE key = ? ORDER BY rowid"
        key = measurement_key(subject, identity, batch)
        with self._transaction() as database:
            return [ms for (ms,) in database.execute(query, (key,))]

    def _put(self, rows: list[tuple[object, ...]]) -> None:
        marks = ", ".join("?" * (1 + len(_COLUMNS)))
        query = f"INSERT OR REPLACE INTO measurements VALUES ({marks})"
        keys = [row[:1] for row in rows]
        with self._transaction() as database:
            database.executemany(query, rows)
            database.executemany("DELETE FROM windows WHERE key = ?", keys)

    def get_ratio(
        self, subject: str, identity: Mapping[str, str], batch: int
    ) -> Ratio | None:
        """The ratio of two times that was put as `subject`; None if there is none."""
        query = "SELECT median, low, high, spread FROM ratios WHERE key = ?"
        key = measurement_key(subject, identity, batch)
        with self._transaction() as database:
            row = database.execute(query, (key,)).fetchone()
        return None if row is None else Ratio(*row)

    def put_ratio(
        self, subject: str, identity: Mapping[str, str], batch: int, ratio: Ratio
    ) -> None:
        """Keep the ratio of two times that were measured side by side. Ratios stand in a
        table of their own and are not exported: they belong to one machine."""
        row = (
            measurement_key(subject, identity, batch),
            subject,
            canonical_json(dict(identity)),
            batch,
            datetime.now(UTC).isoformat(timespec="seconds"),
            ratio.median,
            ratio.low,
            ratio.high,
            ratio.spread,
        )
        marks = ", ".join("?" * len(row))
        with self._transaction() as database:
            database.execute(f"INSERT OR REPLACE INTO ratios VALUES ({marks})", row)

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield all measurements as plain data: subject, engine (its identity), batch,
        date and numbers."""
        query = f"SELECT {', '.join(_COLUMNS)} FROM measurements ORDER BY engine, key"
        with self._transaction() as database:
            for row in database.execute(query):
                found = dict(zip(_COLUMNS, row, strict=True))
                yield found | {"engine": json.loads(found["engine"])}

    def export(self, path: str | os.PathLike[str]) -> int:
        """Write all measurements as JSON lines; returns their number."""
        lines = [json.dumps(row) for row in self.rows()]
        write_text(path, "\n".join([json.dumps({"format": _EXPORT}), *lines]) + "\n")
        return len(lines)

    def include(self, path: str | os.PathLike[str]) -> int:
        """Add the measurements of a file that `export` wrote, all or none. Where one is
        here already, the later of the two stays. Returns how many were added or replaced.

        Raises:
            BadTable: the file has another format or a faulty line, which is named.
        """
        rows = _exported(Path(path))
        with self._transaction() as database:
            known = dict(database.execute("SELECT key, date FROM measurements"))
        later = [row for row in rows if known.get(row[0], "") < str(row[4])]
        self._put(later)
        return len(later)

    def __len__(self) -> int:
        query = "SELECT count(*) FROM measurements"
        with self._transaction() as database:
            return int(database.execute(query).fetchone()[0])

    def close(self) -> None:
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """The database, for statements that are kept together or not at all."""
        try:
            with self._database:
                yield self._database
        except (sqlite3.Error, ValueError) as error:  # ValueError: damaged JSON
            raise self._unusable(error) from error

    def _unusable(self, error: Exception) -> BadInput:
        if "disk is full" in str(error):
            remedy = "Free some space and go on: what was measured is kept."
        else:
            remedy = "Name another file, or delete this one to measure afresh."
        return BadInput(
            f"{self.path}: the store of measurements cannot be used: {error}.", remedy
        )


class StoreLog:
    """The `Log` that keeps the measurements of one engine and batch size in a store.

    rejected: subject → why the engine rejected it. Rejections are not kept in the store.
    """

    def __init__(self, store: Store, identity: Mapping[str, str], batch: int) -> None:
        self._store, self._identity, self._batch = store, identity, batch
        self.rejected: dict[str, BadInput] = {}

    def known(self, key: str) -> Measurement | None:
        return self._store.get(key, self._identity, self._batch)

    def samples(self, key: str) -> list[float]:
        return self._store.samples(key, self._identity, self._batch)

    def add_samples(self, samples_ms: Mapping[str, float]) -> None:
        self._store.add_samples(samples_ms, self._identity, self._batch)

    def finish(self, key: str, time: Measurement) -> None:
        self._store.put(key, self._identity, self._batch, time)

    def reject(self, key: str, error: BadInput) -> None:
        self.rejected[key] = error


def _row(
    subject: str,
    identity: Mapping[str, str],
    batch: int,
    date: str,
    measurement: Measurement,
) -> tuple[object, ...]:
    return (
        measurement_key(subject, identity, batch),
        subject,
        canonical_json(dict(identity)),
        batch,
        date,
        *(getattr(measurement, name) for name in NUMBERS),
    )


def _exported(path: Path) -> list[tuple[object, ...]]:
    remedy = "Name a file that `dpcompress store export` wrote."
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadTable(f"cannot be read: {error}.", remedy, path=path) from error
    rows: list[tuple[object, ...]] = []
    for number, line in enumerate(lines, 1):
        try:
            found = json.loads(line)
            if number == 1 and found["format"] == _EXPORT:
                continue
            date = datetime.fromisoformat(found["date"]).astimezone(UTC)
            rows.append(
                _row(
                    str(found["subject"]),
                    {str(k): str(v) for k, v in found["engine"].items()},
                    int(found["batch"]),
                    date.isoformat(timespec="seconds"),
                    measurement_of(found),
                )
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            fault = f"the line has a fault: {error!r}."
            raise BadTable(fault, remedy, path=path, row=number) from error
    if not lines:
        raise BadTable("the file is empty.", remedy, path=path)
    return rows
