"""Options of several verbs that no settings hold: files, and how results are printed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

OUTPUT = "Output"

RunFolder = Annotated[
    Path,
    typer.Option(
        "-o",
        "--output",
        metavar="RUN",
        help="Folder of the run; made, or gone on with.",
        rich_help_panel=OUTPUT,
    ),
]
WeightsOutput = Annotated[
    Path,
    typer.Option(
        "-o",
        "--output",
        help="The weights to write (safetensors).",
        rich_help_panel=OUTPUT,
    ),
]
PlanFile = Annotated[
    Path,
    typer.Option(
        "--plan",
        metavar="plan.json",
        exists=True,
        dir_okay=False,
        help="The plan, as written by solve.",
        show_default=False,
    ),
]
StoreFile = Annotated[
    Path | None,
    typer.Option(
        "--store",
        metavar="FILE",
        help="Keeps every measurement, so that none is made twice: tables of other "
        "networks share it. Without it: the file that DPCOMPRESS_STORE names, else one "
        "in the user's cache folder.",
        show_default=False,
    ),
]
Json = Annotated[
    bool,
    typer.Option(
        "--json",
        help="Print one JSON object to standard output.",
        rich_help_panel=OUTPUT,
    ),
]
