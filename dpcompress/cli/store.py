"""``dpcompress store``: the measurements that tables share."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from dpcompress.cli.options import Json
from dpcompress.cli.output import emit, print_table
from dpcompress.cli.profile import StoreFile
from dpcompress.errors import UsageError


class Action(StrEnum):
    """What to do with the store."""

    LIST = "list"
    EXPORT = "export"
    IMPORT = "import"


def store(
    action: Annotated[
        Action,
        typer.Argument(
            help="list: how much was measured on what. export: write all as JSON lines. "
            "import: take what export wrote; the later of two measurements stays."
        ),
    ],
    file: Annotated[
        Path | None,
        typer.Argument(metavar="[FILE]", help="For export and import: the JSON lines."),
    ] = None,
    store: StoreFile = None,
    json: Json = False,
) -> None:
    """List, export or import the measurements that latency tables are made of.

    A measurement is found again by what was timed, the engine, its version, the device,
    the precision, the threads and the batch size: if one differs, it is another one.

    \b
    Examples:
      dpcompress store list
      dpcompress store export measurements.jsonl
    """
    if (file is None) != (action is Action.LIST):
        wanted = "takes no file" if action is Action.LIST else "needs a file"
        raise UsageError(f"{action} {wanted}.", "See: dpcompress store --help")
    from collections import Counter

    from dpcompress.latency import Store
    from dpcompress.latency.store import default_path

    path = store or default_path()
    if action is not Action.IMPORT and not path.exists():
        raise UsageError(f"There is no store at {path}.", "Run dpcompress profile first.")
    with Store(path) as known:
        if file is not None:
            moved = known.export(file) if action is Action.EXPORT else known.include(file)
            if json:
                emit({"store": str(path), "file": str(file), "measurements": moved})
            else:
                print(f"{path}: {moved} measurements, {action} {file}")
            return
        groups = Counter(
            (*(row["engine"].get(name, "") for name in _ENGINE), row["batch"])
            for row in known.rows()
        )
    columns = (*_ENGINE, "batch", "measurements")
    rows = [(*group, count) for group, count in sorted(groups.items())]
    if json:
        emit(
            {
                "store": str(path),
                "groups": [dict(zip(columns, r, strict=True)) for r in rows],
            }
        )
    else:
        print_table(columns, rows, title=str(path))


_ENGINE = ("engine", "engine_version", "device", "precision", "threads", "method")
