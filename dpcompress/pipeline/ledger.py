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
    settings and the files it reads are the same as then. A file from outside of the run
    folder may be gone: what was made of it is here.
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
                    "Delete it; then every step is done again.",
                ) from error

    def step(
        self,
        name: str,
        *,
        settings: Mapping[str, Any],
        reads: Sequence[str] = (),
        takes: Sequence[str] = (),
        makes: Sequence[str],
        run: Callable[[], None],
    ) -> None:
        """Do step `name` unless it is done.

        Args:
            reads, makes: files of the run folder.
            takes: paths of files from outside.
        """
        entry = self.steps.get(name, {})
        took = entry.get("took", {})
        taken = {path: self._digest(path) or took.get(path) for path in takes}
        files = {f: self._digest(f) for f in reads}
        came_from = digest({"settings": settings, "files": files, "taken": taken})
        if entry.get("from") == came_from and all(
            entry.get("made", {}).get(file) == self._digest(file) for file in makes
        ):
            return
        run()
        self.steps[name] = {
            "from": came_from,
            "took": taken,
            "made": {file: self._digest(file) for file in makes},
        }
        write_text(self.path, json.dumps(self.steps, indent=1) + "\n")

    def _digest(self, file: str) -> str | None:
        path = self.folder / file
        return digest_file(path) if path.exists() else None
