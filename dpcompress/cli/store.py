"""``dpcompress store``: the measurements that tables share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from dpcompress.cli.files import Json, StoreFile
from dpcompress.cli.output import emit, print_table
from dpcompress.errors import UsageError

if TYPE_CHECKING:
    from pydantic import Field

    from dpcompress.settings import Shown


def store(
    action: Annotated[
        Literal["list", "export", "import"],
        Shown("ACTION", argument=True),
        Field(
            description="list: how much was measured on what. export: write all as JSON "
            "lines. import: take what export wrote; the later of two measurements stays."
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
    if (file is None) != (action == "list"):
        wanted = "takes no file" if action == "list" else "needs a file"
        raise UsageError(f"{action} {wanted}.", "See: dpcompress store --help")
    from collections import Counter

    from dpcompress.latency import Store
    from dpcompress.latency.store import default_path

    path = store or default_path()
    if action != "import" and not path.exists():
        raise UsageError(f"There is no store at {path}.", "Run dpcompress profile first.")
    with Store(path) as known:
        if file is not None:
            moved = known.export(file) if action == "export" else known.include(file)
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
