"""How long work reports where it is. Libraries call it; only the CLI draws it."""

from typing import Protocol


class Progress(Protocol):
    """Called after each unit of work: `done` of `total`, with a short note if any."""

    def __call__(self, done: int, total: int, note: str = "") -> None: ...


def silent(done: int, total: int, note: str = "") -> None:
    """The Progress that says nothing."""
