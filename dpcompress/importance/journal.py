"""Finished scores, one JSON line each, so that a killed run goes on where it was."""

from __future__ import annotations

import json
from pathlib import Path

from dpcompress.errors import BadInput, CannotWrite
from dpcompress.files import write_text
from dpcompress.importance.protocol import Scores


class ScoreJournal:
    """The scores of entries by key, kept in `path`; None keeps them in memory.

    A line that cannot be read, as the last one of a killed run, counts as absent.

    Raises:
        BadInput: the file cannot be read, or not be written (`CannotWrite`).
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.results: dict[str, Scores] = {}
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
            raise BadInput(
                f"The journal {path} cannot be used: {error.strerror or error}.",
                "Choose a folder that you may write to.",
            ) from error

    def _read(self, line: str) -> None:
        try:
            record = json.loads(line)
            metrics = {str(k): float(v) for k, v in record["metrics"].items()}
            self.results[str(record["key"])] = metrics
            self._lines[str(record["key"])] = line
        except (ValueError, TypeError, KeyError, AttributeError):
            return

    def add(self, key: str, metrics: Scores, **notes: object) -> None:
        """Keep the scores of `key`, with notes for human readers."""
        self.results[key] = metrics
        self._lines[key] = line = json.dumps({"key": key, **notes, "metrics": metrics})
        if self.path is not None:
            try:
                self._append(line + "\n")
            except OSError as error:
                raise CannotWrite(
                    f"The journal {self.path} cannot be written: "
                    f"{error.strerror or error}.",
                    "Free some space; what is finished is kept.",
                ) from error

    def settle(self) -> None:
        """Rewrite the file in the order of its keys.

        Then it does not depend on the order in which entries were finished, or on
        interruptions.
        """
        if self.path is not None:
            lines = (f"{self._lines[key]}\n" for key in sorted(self._lines))
            write_text(self.path, "".join(lines))

    def _append(self, text: str) -> None:
        assert self.path is not None
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(text)
