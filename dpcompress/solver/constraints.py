"""The limits and the forced decisions that a plan must respect."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from dpcompress.blueprint import Blueprint, MergedSpan, candidates
from dpcompress.errors import UsageError
from dpcompress.solver.stage1 import span_costs
from dpcompress.tables import MERGE, Key, LatencyTable


@dataclass(frozen=True)
class Limit:
    """The cost of every span in one resource, which a plan must keep within `at_most`.

    The plan's cost is the sum over its spans, or their largest where `peak` is set. A
    span without a cost is not available.
    """

    name: str
    costs: Mapping[Key, float]
    at_most: float
    peak: bool = False

    def __post_init__(self) -> None:
        for key, cost in self.costs.items():
            if not 0 <= cost < math.inf:
                raise UsageError(
                    f"The {self.name} of span {tuple(key.span)} is {cost}.",
                    "A cost is finite and not negative.",
                )
        if math.isnan(self.at_most):
            raise UsageError(f"The limit of {self.name} is not a number.", "Give one.")

    @property
    def adds_up(self) -> bool:
        """Whether the sum over the spans has to be watched."""
        return not self.peak and self.at_most < math.inf

    def describe(self) -> str:
        """Say the limit in words."""
        return f"{self.name} of at most {self.at_most:g}"


def latency_limit(name: str, table: LatencyTable, budget_ms: float) -> Limit:
    """Limit the time on a second engine, device or batch: end to end `budget_ms`."""
    costs = {key: cost[0] for key, cost in span_costs(table).items()}
    return Limit(name, costs, budget_ms - table.fixed_ms)


def parameter_limit(blueprint: Blueprint, at_most: float) -> Limit:
    """Limit the parameters of the merged convolutions."""
    return _of_spans("parameters", blueprint, at_most, lambda merged: merged.params)


def mac_limit(blueprint: Blueprint, at_most: float) -> Limit:
    """Limit the multiply-accumulates of the merged convolutions, for one input."""
    return _of_spans("MACs", blueprint, at_most, lambda merged: merged.macs)


def memory_limit(blueprint: Blueprint, at_most: float) -> Limit:
    """Limit the peak activation memory: the most elements, for one input, that a merged
    convolution holds at once (its input, its output, and the operand of its add)."""

    def elements(merged: MergedSpan) -> int:
        ops = blueprint.ops
        inside = {merged.exit, *merged.tail}
        tensors = {merged.entry, merged.exit} | {
            source
            for index in merged.tail
            if ops[index].kind == "add"
            for source in ops[index].inputs
            if source not in inside
        }
        return sum(_size(ops[index].shape) for index in tensors)

    return _of_spans("activation memory", blueprint, at_most, elements, peak=True)


def _size(shape: tuple[int, ...]) -> int:
    size = 1
    for extent in shape:
        size *= extent
    return size


def _of_spans(
    name: str,
    blueprint: Blueprint,
    at_most: float,
    cost: Callable[[MergedSpan], int],
    peak: bool = False,
) -> Limit:
    costs = {
        Key(*span, MERGE, flag): float(cost(merged))
        for span, merged in candidates(blueprint).items()
        for flag in (False, True)
    }
    return Limit(name, costs, at_most, peak)


@dataclass(frozen=True)
class Forced:
    """The decisions that are taken before the solve.

    keep, drop: positions whose activation stays or goes.
    never_merge: layers that stay a convolution of their own.
    merge: spans whose layers end up in one merged convolution; a span of one layer asks
        that it merges with a neighbour.
    """

    keep: frozenset[int] = frozenset()
    drop: frozenset[int] = frozenset()
    never_merge: frozenset[int] = frozenset()
    merge: frozenset[tuple[int, int]] = frozenset()

    @classmethod
    def build(
        cls,
        depth: int,
        keep: Iterable[int] = (),
        drop: Iterable[int] = (),
        never_merge: Iterable[int] = (),
        merge: Iterable[tuple[int, int]] = (),
    ) -> Forced:
        """Check the decisions for a network of `depth` layers.

        Raises:
            UsageError: a number outside 1..depth, or a contradiction.
        """
        forced = cls(
            frozenset(keep),
            frozenset(drop),
            frozenset(never_merge),
            frozenset((start, stop) for start, stop in merge),
        )
        for number in forced.keep | forced.drop | forced.never_merge:
            if not 1 <= number <= depth:
                raise UsageError(
                    f"There is no layer or position {number} to force.",
                    f"They are numbered 1 to {depth}.",
                )
        for start, stop in forced.merge:
            if not 0 <= start < stop <= depth:
                raise UsageError(
                    f"({start}, {stop}] is no span to merge.",
                    f"A span starts before it stops, between 0 and {depth}.",
                )
        both = sorted(forced.keep & forced.drop)
        if both:
            raise UsageError(
                f"Activation {both[0]} is to be kept and dropped.", "Choose one."
            )
        return forced

    def describe(self) -> list[str]:
        """Say the decisions in words."""
        found: dict[str, Iterable[int] | Iterable[tuple[int, int]]] = {
            "kept activations": self.keep,
            "dropped activations": self.drop,
            "layers never merged": self.never_merge,
            "merged spans": self.merge,
        }
        return [
            f"{what} {', '.join(sorted(map(str, which)))}"
            for what, which in found.items()
            if which
        ]

    def allows_span(self, start: int, stop: int) -> bool:
        """Say whether layers start+1..stop may be one convolution of the result."""
        if stop - start > 1 and any(start < n <= stop for n in self.never_merge):
            return False
        for first, last in self.merge:
            if start < last and first < stop:
                whole = start <= first and last <= stop
                if not whole or stop - start == 1:
                    return False
        return True

    def allows_stretch(self, start: int, stop: int, act_stop: int) -> bool:
        """Say whether a stretch with this flag at stop obeys `keep` and `drop`."""
        if stop in (self.drop if act_stop else self.keep):
            return False
        return not any(start < p < stop for p in self.keep)
