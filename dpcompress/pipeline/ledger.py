"""Which steps of a run are done, and from what: the reason that it can be cut off."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dpcompress.errors import BadInput
from dpcompress.files import digest, digest_file, write_text


class Ledger:
    """Finished steps of a run folder, in RUN/steps.json.

    A step is redone unless the files it makes are there as it left them, and its
    settings and the files it reads are the same as then.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder, folder / "steps.json"
        self.steps: dict[str, Any] = {}
        if self.path.exists():
            try:
                self.steps = json.loads(self.path.read_text())
            except ValueError as error:
                raise BadInput(
                    f"{self.path} is not valid JSON: {error}.",
                    "Delete it; steps whose files are missing will be redone.",
                ) from error

    def step(
        self,
        name: str,
        *,
        settings: Mapping[str, Any],
        reads: Sequence[str] = (),
        makes: Sequence[str],
        run: Callable[[], None],
    ) -> None:
        """Do step `name` unless it is done."""
        came_from = digest(
            {"settings": settings, "files": {f: self._digest(f) for f in reads}}
        )
        entry = self.steps.get(name, {})
        if entry.get("from") == came_from and all(
            entry.get("made", {}).get(file) == self._digest(file) for file in makes
        ):
            return
        run()
        self.steps[name] = {
            "from": came_from,
            "made": {file: self._digest(file) for file in makes},
        }
        write_text(self.path, json.dumps(self.steps, indent=1) + "\n")

    def _digest(self, file: str) -> str | None:
        path = self.folder / file
        return digest_file(path) if path.exists() else None
