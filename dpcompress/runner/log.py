"""The log that `measure` reads and writes while it works."""

from __future__ import annotations

from typing import List, Mapping, Optional, Protocol

from dpcompress.errors import BadInput
from dpcompress.runner.measurement import Measurement


class Log(Protocol):
    """Remembers measurements by the subject's key, so that an interrupted call of
    `measure` can be repeated and goes on where it was."""

    def known(self, key: str) -> Optional[Measurement]:
        """The finished measurement of an earlier call, None if there is none."""

    def samples(self, key: str) -> List[float]:
        """List the milliseconds that an interrupted call gave to `add_samples`."""

    def add_samples(self, samples_ms: Mapping[str, float]) -> None:
        """Keep the undisturbed samples of one round: key → milliseconds."""

    def finish(self, key: str, time: Measurement) -> None:
        """Keep a finished measurement; its samples are not needed any more."""

    def reject(self, key: str, error: BadInput) -> None:
        """Note that the engine cannot build this subject, which is then left out. To end
        the measurement instead, raise the error."""
