"""Read the text of a table file: `# key: value` lines, column names, rows of cells."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path

from dpcompress.errors import BadTable

MAX_BYTES = 512 * 2**20


@dataclass(frozen=True)
class CsvFile:
    """The cells of a table file, as text; `lines` holds the line number of each row."""

    header: dict[str, str]
    columns: list[str]
    rows: list[list[str]]
    lines: list[int]

    def column(self, number: int) -> list[str]:
        """Return the cells of one column."""
        return [row[number] for row in self.rows]


def fault_in(
    path: object, fault: str, row: int | None = None, column: str | None = None
) -> BadTable:
    """Make the error for a fault in a table, with its place."""
    remedy = "Correct the file or make it again."
    return BadTable(f"{fault}.", remedy, path=path, row=row, column=column)


def read_csv_file(path: Path) -> CsvFile:
    """Read a file whose rows all have as many cells as there are columns.

    Raises:
        BadTable: not such a file; says the line.
    """
    lines = list(io.StringIO(_read_text(path), newline=""))
    body = next((n for n, line in enumerate(lines) if line[0] != "#"), len(lines))
    header = _header(path, lines[:body])
    reader = csv.reader(lines[body:], strict=True)
    rows: list[list[str]] = []
    places: list[int] = []
    try:
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            rows.append([cell.strip() for cell in cells])
            places.append(body + reader.line_num)
            if len(cells) != len(rows[0]):
                fault = f"{len(cells)} cells under {len(rows[0])} columns"
                raise fault_in(path, fault, places[-1])
    except csv.Error as error:
        place = body + reader.line_num
        raise fault_in(path, f"not CSV: {error}", place) from error
    if not rows:
        raise fault_in(path, "the file is empty")
    return CsvFile(header, rows[0], rows[1:], places[1:])


def _header(path: Path, lines: list[str]) -> dict[str, str]:
    header: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        key, colon, value = line[1:].partition(":")
        key = key.strip()
        if not colon or not key:
            raise fault_in(path, "the line is not `# key: value`", number)
        if key in header:
            raise fault_in(path, f"the key {key!r} is there twice", number)
        header[key] = value.strip()
    return header


def _read_text(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise fault_in(path, f"larger than {MAX_BYTES >> 20} MiB")
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        reason = f"cannot be read: {error.strerror or error}."
        raise BadTable(reason, "Check the path.", path=path) from error
    except UnicodeDecodeError as error:
        raise fault_in(path, "not UTF-8 text") from error
