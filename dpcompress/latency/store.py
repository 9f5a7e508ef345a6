"""Measurements that were made before, content-addressed, in one SQLite file."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from dpcompress.errors import BadInput
from dpcompress.files import canonical_json, digest
from dpcompress.runner import Measurement

_VERSION = 1
_NUMBERS = ("median_ms", "p90_ms", "spread_ms", "error_ms", "samples", "disturbed")


def measurement_key(subject: str, identity: Mapping[str, str], batch: int) -> str:
    """What a time depends on: what was timed, on what, at which batch size."""
    return digest({"subject": subject, "engine": dict(identity), "batch": batch})


class Store:
    """Keeps each measurement as soon as it is put; a killed process loses none of them.

    Args:
        path: the file, made if it is missing; None keeps everything in memory.

    Raises:
        BadInput: not such a file, or it cannot be written.
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

    def get(
        self, subject: str, identity: Mapping[str, str], batch: int
    ) -> Measurement | None:
        """What was measured for exactly this, without its windows; None if nothing."""
        columns = ", ".join(_NUMBERS)
        query = f"SELECT {columns} FROM measurements WHERE key = ?"
        key = measurement_key(subject, identity, batch)
        try:
            row = self._database.execute(query, (key,)).fetchone()
        except sqlite3.Error as error:
            raise self._unusable(error) from error
        return None if row is None else Measurement(*row)

    def put(
        self,
        subject: str,
        identity: Mapping[str, str],
        batch: int,
        measurement: Measurement,
    ) -> None:
        """Keep a measurement, in place of an earlier one of the same."""
        row = (
            measurement_key(subject, identity, batch),
            subject,
            canonical_json(dict(identity)),
            batch,
            datetime.now(UTC).isoformat(timespec="seconds"),
            *(getattr(measurement, name) for name in _NUMBERS),
        )
        marks = ", ".join("?" * len(row))
        try:
            with self._database:
                query = f"INSERT OR REPLACE INTO measurements VALUES ({marks})"
                self._database.execute(query, row)
        except sqlite3.Error as error:
            raise self._unusable(error) from error

    def __len__(self) -> int:
        query = "SELECT count(*) FROM measurements"
        return int(self._database.execute(query).fetchone()[0])

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

    def _unusable(self, error: Exception) -> BadInput:
        return BadInput(
            f"{self.path}: the store of measurements cannot be used: {error}.",
            "Name another file, or delete this one to measure afresh.",
        )
