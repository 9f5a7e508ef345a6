"""The entries that an importance table needs: spans worth scoring, with their flags."""

from __future__ import annotations

from collections.abc import Iterable
from math import inf

from dpcompress.blueprint import Blueprint, Plan, Span, candidates
from dpcompress.solver.stage1 import fastest_stretches
from dpcompress.tables import MERGE, LatencyTable, ScoreKey


def flags(blueprint: Blueprint, position: int, free: bool = True) -> tuple[bool, ...]:
    """List the flags that `position` can have.

    The flag is True where the original has an activation, and at position 0 by
    convention. A linear position has False, and with `free` also True, for an added
    activation; the last position stays as it is.
    """
    if position == 0 or blueprint.has_activation(position):
        return (True,)
    return (False, True) if free and position < blueprint.depth else (False,)


def entries(
    blueprint: Blueprint, spans: Iterable[Span] | None = None, free: bool = True
) -> list[ScoreKey]:
    """List all entries of `spans` (default: every candidate), in order.

    Without `free`, entries that add an activation are left out.
    """
    return [
        ScoreKey(*span, MERGE, a, b)
        for span in sorted(candidates(blueprint) if spans is None else spans)
        for a in flags(blueprint, span.start, free)
        for b in flags(blueprint, span.stop, free)
    ]


def worth_scoring(blueprint: Blueprint, latency: LatencyTable) -> list[Span]:
    """List single layers, and candidates that are faster than any cut of their layers.

    Where T_opt[i,m] + T[m,j] is no slower than T[i,j] for an m in between, the merged
    network has a boundary at m anyway, and an activation there costs nothing.
    """
    times = latency.span_times(blueprint)
    best = fastest_stretches(times)

    def is_worth(span: Span) -> bool:
        """Whether the span is a single layer or faster than all its splits."""
        if span.length == 1:
            return True
        splits = (
            best[Span(span.start, m)].latency_ms + times[Span(m, span.stop)]
            for m in range(span.start + 1, span.stop)
            if Span(span.start, m) in best and Span(m, span.stop) in times
        )
        return span in times and times[span] < min(splits, default=inf)

    return sorted(filter(is_worth, candidates(blueprint)))


def plan_of(blueprint: Blueprint, entry: ScoreKey) -> Plan:
    """Make the plan that applies one entry and leaves the rest of the network as it is.

    No activation stands strictly inside the entry's span; one is added at an end where
    the flags ask for it.
    """
    inside = range(entry.start + 1, entry.stop)
    positions = [p for p in range(blueprint.depth + 1) if p not in inside]
    ends = {entry.start: entry.act_start, entry.stop: entry.act_stop}
    added = [
        p for p, flag in ends.items() if p and flag and not blueprint.has_activation(p)
    ]
    kept = [p for p in positions if p and blueprint.has_activation(p)]
    return Plan.build(
        tuple(positions),
        (*kept, *added),
        added_activations=tuple(sorted(added)),
        blueprint=blueprint.digest,
        input=blueprint.input,
    )
