"""Finished jobs, one JSON line each, so that a killed run goes on where it was."""

from __future__ import annotations

import json
from pathlib import Path

from dpcompress.errors import BadInput
from dpcompress.files import write_text

Metrics = dict[str, float]


class Journal:
    """Results by key, kept in `path` (or in memory only, for None).

    A line that cannot be read, as the last one of a killed run, counts as absent.

    Raises:
        BadInput: the file cannot be read or written.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.results: dict[str, Metrics] = {}
        self._lines: dict[str, str] = {}
        if path is None:
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            text = path.read_bytes().decode(errors="replace") if path.exists() else ""
            for line in text.splitlines():
                self._read(line)
            if text and not text.endswith("\n"):
                self._append("\n")
        except OSError as error:
            raise _unusable(path, error) from error

    def _read(self, line: str) -> None:
        try:
            record = json.loads(line)
            metrics = {str(k): float(v) for k, v in record["metrics"].items()}
            self.results[str(record["key"])] = metrics
            self._lines[str(record["key"])] = line
        except (ValueError, TypeError, KeyError, AttributeError):
            return

    def add(self, key: str, metrics: Metrics, **notes: object) -> None:
        """Keep a result, with notes for human readers."""
        self.results[key] = metrics
        self._lines[key] = line = json.dumps({"key": key, **notes, "metrics": metrics})
        if self.path is not None:
            try:
                self._append(line + "\n")
            except OSError as error:
                raise _unusable(self.path, error) from error

    def settle(self) -> None:
        """Rewrite the file in the order of its keys, so that it no longer tells in which
        order jobs finished, or where a run was cut off."""
        if self.path is not None:
            lines = (f"{self._lines[key]}\n" for key in sorted(self._lines))
            write_text(self.path, "".join(lines))

    def _append(self, text: str) -> None:
        assert self.path is not None
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(text)


def _unusable(path: Path, error: OSError) -> BadInput:
    return BadInput(
        f"The journal {path} cannot be used: {error.strerror or error}.",
        "Free some space or choose a folder that you may write to.",
    )
