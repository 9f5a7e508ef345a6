"""List the spans of a network: all, the legal ones, the candidates."""

from __future__ import annotations

from collections.abc import Iterator

from dpcompress.blueprint.data import LINEAR_KINDS, Blueprint, Span
from dpcompress.blueprint.examine import MergedSpan, examine


def spans_of(blueprint: Blueprint) -> Iterator[Span]:
    """List every span whose layers are of one chain, legal or not, in order."""
    for chain in blueprint.chains:
        for start in range(chain.start, chain.stop):
            for stop in range(start + 1, chain.stop + 1):
                yield Span(start, stop)


def legal_spans(blueprint: Blueprint) -> dict[Span, MergedSpan]:
    """Find all spans that can become one convolution, candidates or not, in order."""
    found = ((span, examine(blueprint, span)) for span in spans_of(blueprint))
    return {span: merged for span, merged in found if isinstance(merged, MergedSpan)}


def barriers(blueprint: Blueprint) -> tuple[int, ...]:
    """Find the positions that no legal span passes over, 0 and L included."""
    passed = {p for s in legal_spans(blueprint) for p in range(s.start + 1, s.stop)}
    return tuple(p for p in range(blueprint.depth + 1) if p not in passed)


def candidates(blueprint: Blueprint) -> dict[Span, MergedSpan]:
    """Find the legal spans within the blueprint's limits, in order."""
    return {s: m for s, m in legal_spans(blueprint).items() if m.is_candidate}


def branch_ops(blueprint: Blueprint, merged: MergedSpan) -> tuple[int, ...]:
    """Find the ops of linear side branches that feed a residual add in `merged.tail`.

    They run beside the merged conv, and their time is charged to its span
    (docs/method.md §2).
    """
    ops, found = blueprint.ops, set()
    chain_ops = blueprint.position_of
    todo = [
        source
        for index in merged.tail
        if ops[index].kind == "add"
        for source in ops[index].inputs
        if source != merged.exit
    ]
    while todo:
        index = todo.pop()
        if index in chain_ops or index in found or ops[index].kind not in LINEAR_KINDS:
            continue
        found.add(index)
        todo.extend(ops[index].inputs)
    return tuple(sorted(found))
