"""The problem to solve: the tables, and what a plan must respect."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from dpcompress.errors import BadTable
from dpcompress.solver.constraints import Forced, Limit
from dpcompress.tables import ImportanceTable, LatencyTable

SPREADS = 1.645  # the one-sided 95 % quantile of a normal distribution


@dataclass(frozen=True, eq=False)
class Problem:
    """The tables of one network, forced decisions and limits; `build` checks them."""

    latency: LatencyTable
    importance: ImportanceTable
    forced: Forced
    limits: tuple[Limit, ...]

    @classmethod
    def build(
        cls,
        latency: LatencyTable,
        importance: ImportanceTable,
        *,
        keep: Iterable[int] = (),
        drop: Iterable[int] = (),
        never_merge: Iterable[int] = (),
        merge: Iterable[tuple[int, int]] = (),
        limits: Sequence[Limit] = (),
        pessimistic: bool = False,
    ) -> Problem:
        """Make a problem from the arguments of `solve`, checked.

        Raises:
            BadTable: the tables are not of one network.
            UsageError: contradictory or unknown decisions.
        """
        check_together(latency, importance)
        forced = Forced.build(latency.depth, keep, drop, never_merge, merge)
        used = upper_bound(latency) if pessimistic else latency
        return cls(used, importance, forced, tuple(limits))

    def forcing(
        self,
        *,
        keep: Iterable[int] = (),
        drop: Iterable[int] = (),
        never_merge: Iterable[int] = (),
        merge: Iterable[tuple[int, int]] = (),
    ) -> Problem:
        """Force more decisions.

        Raises:
            UsageError: they contradict each other or those of the problem.
        """
        forced = Forced.build(
            self.latency.depth,
            self.forced.keep.union(keep),
            self.forced.drop.union(drop),
            self.forced.never_merge.union(never_merge),
            self.forced.merge.union(merge),
        )
        return replace(self, forced=forced)

    @property
    def conditions(self) -> tuple[str, ...]:
        """The limits and the forced decisions, in words."""
        return (*(limit.describe() for limit in self.limits), *self.forced.describe())


def upper_bound(latency: LatencyTable) -> LatencyTable:
    """Raise each latency by 1.645 times its spread.

    If spreads are standard deviations, 5 % of the times exceed these values. The number
    of samples does not lessen them, since the drift of a machine does not average out.
    """
    raised = latency.frame["latency_ms"] + SPREADS * latency.frame["spread_ms"]
    return LatencyTable(
        latency.frame.assign(latency_ms=raised), latency.header, latency.source
    )


def check_together(latency: LatencyTable, importance: ImportanceTable) -> None:
    """Raise BadTable unless both tables are of one network."""
    for what, left, right in (
        ("position count", latency.depth, importance.depth),
        ("blueprint", latency.blueprint, importance.blueprint),
        ("input", latency.input, importance.input),
    ):
        if left and right and left != right:
            raise BadTable(
                f"its {what} is {right}, that of {latency.source} is {left}.",
                "Take both tables from the same model, input and limits.",
                path=importance.source,
            )
