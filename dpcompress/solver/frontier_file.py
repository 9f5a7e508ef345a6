"""The plans of a frontier as a CSV file."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable

from dpcompress.blueprint import Plan
from dpcompress.errors import BadTable, first_line
from dpcompress.files import write_text

_REMEDY = "Make it again with: dpcompress solve --frontier F.csv"
COLUMNS = ("latency_ms", "importance", "boundaries", "activations")


def write_frontier(plans: Iterable[Plan], path: str | os.PathLike[str]) -> None:
    """Write plans as CSV, positions separated by spaces; atomic."""
    lines = [",".join(COLUMNS)]
    for plan in plans:
        boundaries = " ".join(map(str, plan.boundaries))
        activations = " ".join(map(str, plan.activations))
        lines.append(f"{plan.predicted_ms},{plan.importance},{boundaries},{activations}")
    write_text(path, "\n".join(lines) + "\n")


def read_frontier(path: str | os.PathLike[str]) -> list[Plan]:
    """Read what `write_frontier` wrote, from the fastest plan to the most important one.

    The file does not say which network the plans are for, nor which of their activations
    are added: `blueprint`, `input` and `added_activations` are empty.

    Raises:
        BadTable: not such a file; says line and column.
    """
    with open(path, newline="", encoding="utf-8", errors="replace") as file:
        rows = list(csv.reader(file))
    if not rows or tuple(rows[0]) != COLUMNS:
        fault = f"the columns are not {', '.join(COLUMNS)}."
        raise BadTable(fault, _REMEDY, path=path, row=1)
    return [_plan(row, path, line) for line, row in enumerate(rows[1:], 2)]


def _plan(row: list[str], path: str | os.PathLike[str], line: int) -> Plan:
    try:
        latency_ms, importance, boundaries, activations = row
        return Plan.build(
            tuple(map(int, boundaries.split())),
            tuple(map(int, activations.split())),
            predicted_ms=float(latency_ms),
            importance=float(importance),
        )
    except ValueError as error:
        raise BadTable(
            f"not a plan: {first_line(error)}.", _REMEDY, path=path, row=line
        ) from error
