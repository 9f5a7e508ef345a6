"""What a verb prints: results to standard output, everything else to standard error."""

from __future__ import annotations

import json
import math
import re
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console

from dpcompress.progress import Progress

# For notes to the person at the terminal; standard output stays clean.
console = Console(stderr=True, highlight=False)

SECONDS_BETWEEN_LINES = 10.0

_NUMBER = re.compile(r"((± ?)?[-+\d.,]+(e[-+]?\d+)?%?( [kMG])?)?")


def emit(result: Mapping[str, Any]) -> None:
    """Print `result` as the one JSON object that ``--json`` promises."""
    sys.stdout.write(json.dumps(_finite(result), ensure_ascii=False, default=str) + "\n")


def _finite(value: Any) -> Any:
    """Replace infinities and NaN, which JSON does not have, by null."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return value


def print_table(
    columns: Sequence[str], rows: Iterable[Sequence[object]], title: str = ""
) -> None:
    """Print a table to standard output; columns of numbers are aligned to the right."""
    from rich import box
    from rich.table import Table

    cells = [[_cell(value) for value in row] for row in rows]
    table = Table(title=title or None, box=box.SIMPLE_HEAD, title_justify="left")
    for index, column in enumerate(columns):
        numeric = all(_NUMBER.fullmatch(row[index]) for row in cells)
        table.add_column(column, justify="right" if numeric else "left")
    for row in cells:
        table.add_row(*row)
    wide = None if sys.stdout.isatty() else 200
    Console(highlight=False, width=wide).print(table)


def _cell(value: object) -> str:
    if isinstance(value, bool):
        text = "yes" if value else "no"
    elif isinstance(value, float):
        text = f"{value:.4g}"
    else:
        text = "" if value is None else str(value)
    return text.replace("[", r"\[")


def print_breakdown(times: Mapping[str, Mapping[str, float]]) -> None:
    """Print what parts of an inference take on a GPU: network → part → ms."""
    parts = ("min", "mean", "median", "p90", "p95", "p99")
    columns = ("GPU compute ms", *parts, "per second", "enqueue ms", "H2D ms", "D2H ms")
    others = ("per_second", "enqueue_ms", "h2d_ms", "d2h_ms")
    keys = (*(f"compute_{part}_ms" for part in parts), *others)
    print_table(columns, [(name, *(t[k] for k in keys)) for name, t in times.items()])


@contextmanager
def progress_bar(title: str) -> Iterator[Progress]:
    """A Progress that draws on standard error: a bar with the time left on a terminal,
    otherwise a plain line every ten seconds and one at the end."""
    if console.is_terminal:
        with _bar(title) as progress:
            yield progress
    else:
        yield _lines(title)


@contextmanager
def _bar(title: str) -> Iterator[Progress]:
    from rich import progress as rich

    columns = (
        rich.TextColumn("{task.description}"),
        rich.BarColumn(),
        rich.MofNCompleteColumn(),
        rich.TimeRemainingColumn(elapsed_when_finished=True),
        rich.TextColumn("{task.fields[note]}", style="dim"),
    )
    with rich.Progress(*columns, console=console) as bar:
        task = bar.add_task(title, total=None, note="")

        def report(done: int, total: int, note: str = "") -> None:
            bar.update(task, completed=done, total=total, note=note.replace("[", r"\["))

        yield report


def _lines(title: str) -> Progress:
    began = said = time.monotonic()

    def report(done: int, total: int, note: str = "") -> None:
        nonlocal said
        now = time.monotonic()
        if done < total and now - said < SECONDS_BETWEEN_LINES:
            return
        said = now
        if done < total:
            left = (now - began) / done * (total - done) if done else 0.0
            when = f", about {_duration(left)} left" if done else ""
        else:
            when = f", took {_duration(now - began)}"
        sys.stderr.write(f"{title}: {done}/{total}{when}{note and '  ' + note}\n")
        sys.stderr.flush()

    return report


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
