"""The torch engine among the others, and the engine that a table was made on.

torch is not in the runner, which must do without it; from here on it is known by name.
"""

from __future__ import annotations

from typing import TypedDict

from dpcompress.errors import BadTable
from dpcompress.runner import ENGINES, open_engine
from dpcompress.runner.engine import most_copies
from dpcompress.tables import LatencyTable

__all__ = ["ENGINES", "EngineSettings", "engine_of", "most_copies", "open_engine"]

ENGINES["torch"] = ("dpcompress.latency.torch_engine", "Torch")


class EngineSettings(TypedDict):
    """Arguments of `bench`."""

    engine: str
    threads: int
    precision: str
    device: str | None


def engine_of(table: LatencyTable) -> EngineSettings:
    """What `table` says that it was measured with.

    Raises:
        BadTable: it does not say, as tables of the published layout do not.
    """
    header = table.header
    try:
        return EngineSettings(
            engine=header["engine"],
            threads=int(header["threads"]),
            precision=header["precision"],
            device="cuda" if header["device"].startswith("cuda:") else None,
        )
    except (KeyError, ValueError) as error:
        raise BadTable(
            f"the header does not say what it was measured with ({error}).",
            "Make the table with: dpcompress profile MODEL -o T.csv",
            path=table.source,
        ) from error
