"""All engines by name, and the one that a table was made on."""

from __future__ import annotations

from typing import TypedDict

from dpcompress.errors import BadTable
from dpcompress.runner import ENGINES as TORCH_FREE
from dpcompress.runner import Engine
from dpcompress.runner import open_engine as open_one_of
from dpcompress.tables import LatencyTable

ENGINES = {**TORCH_FREE}
"""Name → module and class, as in the runner."""


def open_engine(
    engine: str,
    *,
    threads: int | None = None,
    precision: str = "fp32",
    device: str = "cpu",
) -> Engine:
    """`dpcompress.runner.open_engine` for all engines, torch too."""
    return open_one_of(
        engine, threads=threads, precision=precision, device=device, engines=ENGINES
    )


class EngineSettings(TypedDict):
    """Arguments of `open_engine` and `bench_networks`."""

    engine: str
    threads: int
    precision: str


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
        )
    except (KeyError, ValueError) as error:
        raise BadTable(
            f"the header does not say what it was measured with ({error}).",
            "Make the table with: dpcompress profile MODEL -o T.csv",
            path=table.source,
        ) from error
