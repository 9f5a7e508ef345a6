"""The typed keys of table rows."""

from __future__ import annotations

from typing import NamedTuple

from dpcompress.blueprint import Span

MERGE = "merge"  # the way of rows that name none


class Key(NamedTuple):
    """The key of a latency: layers start+1 .. stop, run in one way, with an activation
    at their end or without."""

    start: int
    stop: int
    way: str
    act_stop: bool

    @property
    def span(self) -> Span:
        """The layers."""
        return Span(self.start, self.stop)


class ScoreKey(NamedTuple):
    """The key of an importance: layers start+1 .. stop, run in one way, with activations
    before them and at their end, or without."""

    start: int
    stop: int
    way: str
    act_start: bool
    act_stop: bool

    @property
    def span(self) -> Span:
        """The layers."""
        return Span(self.start, self.stop)

    @property
    def key(self) -> Key:
        """The key of the latency that belongs to it."""
        return Key(self.start, self.stop, self.way, self.act_stop)
