"""The errors that dpcompress raises on purpose.

Each carries one sentence (what, where), a remedy and the exit code of the command line.
Anything else that escapes is a bug.
"""

from __future__ import annotations

from typing import Optional


class DpcompressError(Exception):
    """The base of all expected failures.

    Args:
        message: what went wrong and where, one sentence.
        remedy: what the user can do about it, one sentence.
    """

    exit_code = 1

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message} {self.remedy}".rstrip()


class DpcompressWarning(UserWarning):
    """A warning for the user, which does not stop the work."""


class UsageError(DpcompressError):
    """A wrong argument: unknown model, malformed budget, impossible combination."""

    exit_code = 2


class InfeasibleBudget(DpcompressError):
    """A budget that no plan meets; ``least_ms`` is the least latency found, or inf."""

    exit_code = 3

    def __init__(self, message: str, remedy: str = "", *, least_ms: float) -> None:
        super().__init__(message, remedy)
        self.least_ms = least_ms


class BadInput(DpcompressError):
    """An input (file, image folder, weights) that cannot be used."""

    exit_code = 4


class CannotWrite(BadInput):
    """An output that cannot be written: no such folder, no permission, a full disk."""


class BadTable(BadInput):
    """A table or results file with a fault at a known place.

    Args:
        path: the file.
        row: line number in the file, counted from 1, or None for the file as a whole.
        column: column name, or None.
    """

    def __init__(
        self,
        message: str,
        remedy: str = "",
        *,
        path: object,
        row: Optional[int] = None,
        column: Optional[str] = None,
    ) -> None:
        place = str(path)
        if row is not None:
            place += f", line {row}"
        if column is not None:
            place += f", column {column}"
        super().__init__(f"{place}: {message}", remedy)
        self.path, self.row, self.column = path, row, column


class UntraceableModel(BadInput):
    """A model whose computation cannot be captured as a static graph of one input."""


class IllegalMerge(BadInput):
    """A plan that does not fit a network, or a network that cannot be merged (yet)."""


class EngineUnavailable(DpcompressError):
    """The inference engine, its device or its precision is not available here."""

    exit_code = 5


class MissingPackage(DpcompressError):
    """An optional package is asked for but not installed."""

    exit_code = 5


class TrainingDiverged(DpcompressError):
    """A training loss became infinite or not a number."""


class VerificationFailed(DpcompressError):
    """A merge, an export or a recorded claim does not hold."""

    exit_code = 6


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text, without its full stop.

    An error without a text is given the name of its type.
    """
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
