"""The groups of activations that share a mask: each its own, or all of a block."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby

from dpcompress.blueprint import Blueprint, barriers, candidates, skips
from dpcompress.errors import BadInput, UsageError
from dpcompress.settings import By

# Positions whose activations share a mask.
Group = tuple[int, ...]


def mask_groups(blueprint: Blueprint, by: By) -> tuple[Group, ...]:
    """Group the activations of a network by their masks, in order.

    An activation that no candidate span passes over has no mask and stays: nothing would
    merge without it. By "block", the activations strictly inside a residual block (of
    nested ones the innermost) share a mask, and so do those between two neighbouring
    block edges where there is no residual, as in a strided inverted residual. The one at
    a block's end, if there is one, has no mask: the block merges with it in place.

    Raises:
        BadInput: nothing could be removed, or the network has no residual blocks.
    """
    passed = {
        p for span in candidates(blueprint) for p in range(span.start + 1, span.stop)
    }
    free = [position for position in sorted(passed) if blueprint.has_activation(position)]
    if by == "block":
        edges = block_edges(blueprint)
        if not any(skip.source is not None for skip in skips(blueprint)):
            raise BadInput(
                "The network has no residual blocks, so none can share a mask.",
                "Use --by activation.",
            )
        free = [position for position in free if position not in edges]
    if not free:
        raise BadInput(
            f"The network has no activation to remove by {by}.",
            "See `dpcompress inspect MODEL --spans`.",
        )
    if by == "activation":
        return tuple((position,) for position in free)
    return _between(edges, free)


def check_keep(groups: tuple[Group, ...], keep: int, by: By) -> None:
    """Raise UsageError unless 1 ≤ keep ≤ number of masks."""
    if not 1 <= keep <= len(groups):
        of = "activations" if by == "activation" else "blocks of activations"
        raise UsageError(
            f"{keep} of {len(groups)} masks cannot be kept: the network has "
            f"{len(groups)} {of} that could go.",
            f"Keep 1 to {len(groups)}.",
        )


def block_edges(blueprint: Blueprint) -> frozenset[int]:
    """Return the positions at which a block starts or ends.

    They are the ends of residual connections, the outputs of linear bottlenecks outside
    of residual blocks, and barriers.
    """
    found = set(barriers(blueprint))
    inside: set[int] = set()
    for skip in skips(blueprint):
        found.add(skip.target)
        if skip.source is not None:
            found.add(skip.source)
            inside |= set(range(skip.source + 1, skip.target))
    found |= {
        position
        for position in range(1, blueprint.depth + 1)
        if position not in inside and not blueprint.has_activation(position)
    }
    return frozenset(found)


def _between(edges: Iterable[int], positions: Iterable[int]) -> tuple[Group, ...]:
    """Part `positions` into runs with no edge between them."""
    ordered = sorted(edges)

    def edges_before(position: int) -> int:
        return sum(edge < position for edge in ordered)

    return tuple(tuple(run) for _, run in groupby(positions, key=edges_before))
