"""Keeps TensorRT's timings of tactics between builds, which are then faster and alike.

TensorRT trusts the bytes that it is given. So the file begins with a line that names the
TensorRT and the GPU, and holds the digest of the rest.
"""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from contextlib import suppress
from typing import Any, Dict, Mapping, Optional

from dpcompress.errors import CannotWrite, DpcompressWarning

FORMAT = "dpcompress timing cache 1"


class TimingCache:
    """Reads and writes one file of timings; a damaged or foreign one is replaced, with a
    warning.

    Args:
        path: the file; None keeps the timings in memory.
        about: TensorRT's version and the GPU; timings of others are not used.
    """

    def __init__(self, path: Optional[str], about: Mapping[str, str]) -> None:
        self.path, self._about = path, dict(about)
        self._data = self._read()

    def attach(self, config: Any) -> None:
        """Let a build with `config` use the timings and add to them."""
        cache = config.create_timing_cache(self._data)
        if cache is None or not config.set_timing_cache(cache, False):
            self._warn("TensorRT refuses it")
            cache = config.create_timing_cache(b"")
            config.set_timing_cache(cache, False)

    def keep(self, config: Any) -> None:
        """Save what a build with `config` has added.

        Raises:
            CannotWrite: the file cannot be written.
        """
        cache = config.get_timing_cache()
        if cache is None:
            return
        data = bytes(cache.serialize())
        if data != self._data:
            self._data = data
            self._write()

    def _read(self) -> bytes:
        if self.path is None:
            return b""
        try:
            with open(self.path, "rb") as file:
                head, data = file.readline(10_000), file.read()
        except FileNotFoundError:
            return b""
        except OSError as error:
            self._warn(f"it cannot be read: {error.strerror}")
            return b""
        try:
            found: Dict[str, Any] = json.loads(head.decode())
            known = {key: found.get(key) for key in self._about}
            intact = found["sha256"] == _digest(data) and found["format"] == FORMAT
        except (ValueError, KeyError, TypeError, AttributeError):
            intact, known = False, {}
        if not intact:
            self._warn("it is damaged")
            return b""
        if known != self._about:
            self._warn(f"it is of {', '.join(map(str, known.values()))}")
            return b""
        return data

    def _write(self) -> None:
        if self.path is None:
            return
        head = {"format": FORMAT, **self._about, "sha256": _digest(self._data)}
        folder = os.path.dirname(os.path.abspath(self.path))
        temporary = f"{self.path}.{os.getpid()}"
        try:
            os.makedirs(folder, exist_ok=True)
            with open(temporary, "wb") as file:
                file.write(json.dumps(head).encode() + b"\n" + self._data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, self.path)
        except OSError as error:
            with suppress(OSError):
                os.remove(temporary)
            raise CannotWrite(
                f"The timing cache {self.path} cannot be written: {error.strerror}.",
                "Name another file in DPCOMPRESS_TIMING_CACHE.",
            ) from error

    def _warn(self, why: str) -> None:
        message = f"The timing cache {self.path} is built anew: {why}."
        warnings.warn(message, DpcompressWarning, stacklevel=2)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
