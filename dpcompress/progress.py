"""The call by which long work reports its progress; only the CLI draws it."""

from typing import Protocol


class Progress(Protocol):
    """A function that is called after each unit of work, with a short note if any."""

    def __call__(self, done: int, total: int, note: str = "") -> None: ...


def silent(done: int, total: int, note: str = "") -> None:
    """Ignore the progress."""
