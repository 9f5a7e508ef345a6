"""A bundle: graphs to time and a manifest, in one zip file."""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
import zlib
from typing import Any, Dict, List, NamedTuple, Union

from dpcompress.errors import BadInput

FORMAT = "dpcompress bundle 1"
MANIFEST = "manifest.json"


class Entry(NamedTuple):
    """A graph in a bundle.

    subject: its name in the results.
    file: its ONNX file in the zip.
    bytes, kind: see `Subject`.
    """

    subject: str
    file: str
    bytes: int
    kind: str


class Bundle:
    """Reads a bundle; its graphs are read one at a time.

    about: facts that a table needs; the results repeat them in their header.
    anchor: the file of the graph that tells of disturbances.
    digest: identifies the bundle.

    Raises:
        BadInput: not a bundle, or a damaged one.
    """

    def __init__(self, path: Union[str, os.PathLike[str]]) -> None:
        self.path = str(path)
        try:
            self._zip = zipfile.ZipFile(self.path)
        except OSError as error:
            raise BadInput(
                f"{self.path} cannot be read: {error.strerror}.", "Check the path."
            ) from error
        except zipfile.BadZipFile as error:
            raise self._damaged(str(error)) from error
        text = self._read(MANIFEST)
        self.digest = hashlib.sha256(text).hexdigest()[:16]
        try:
            manifest = json.loads(text.decode())
            if manifest["format"] != FORMAT:
                raise self._damaged(f"its format is {manifest['format']!r}")
            self.about: Dict[str, Any] = dict(manifest["about"])
            self.anchor = str(manifest["anchor"])
            self.entries: List[Entry] = [
                Entry(
                    subject=str(graph["subject"]),
                    file=str(graph["file"]),
                    bytes=int(graph["bytes"]),
                    kind=str(graph.get("kind", "")),
                )
                for graph in manifest["graphs"]
            ]
        except (ValueError, KeyError, TypeError) as error:
            raise self._damaged(f"{MANIFEST} has a fault: {error!r}") from error

    def graph(self, file: str) -> bytes:
        """Read the ONNX bytes of one graph.

        Raises:
            BadInput: the bundle is damaged.
        """
        return self._read(file)

    def _read(self, name: str) -> bytes:
        try:
            return self._zip.read(name)
        except (KeyError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise self._damaged(f"{name}: {error}") from error

    def _damaged(self, why: str) -> BadInput:
        return BadInput(
            f"{self.path} is not a bundle, or a damaged one: {why.rstrip('.')}.",
            "Copy it again, or make it with: dpcompress profile MODEL --bundle FILE",
        )
