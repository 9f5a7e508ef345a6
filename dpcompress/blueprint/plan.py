"""The Plan: which activations stay and where the merged network has boundaries."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import model_validator

from dpcompress.blueprint.data import Blueprint, Frozen, Span, parse
from dpcompress.files import digest


class Plan(Frozen):
    """A decision, as plain data.

    boundaries: S of the papers, 0 and L included: layers between neighbours merge.
    activations: A of the papers: positions where an activation stands.
    added_activations: those of `activations` where the original network has none.
    spans: neighbours of `boundaries`, written out for readers of the file.
    blueprint: digest of the Blueprint that the plan is for ("" if unknown).
    input: (C, H, W) that the blueprint was traced with, if known.
    latency_ms: predicted, fixed part included.
    """

    version: Literal[1] = 1
    budget_ms: float | None = None
    latency_ms: float | None = None
    importance: float | None = None
    spans: tuple[tuple[int, int], ...]
    boundaries: tuple[int, ...]
    activations: tuple[int, ...]
    added_activations: tuple[int, ...] = ()
    blueprint: str = ""
    input: tuple[int, int, int] | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        edges = self.boundaries
        if len(edges) < 2 or edges[0] != 0 or list(edges) != sorted(set(edges)):
            raise ValueError("boundaries must rise strictly from 0 to L")
        if self.spans != tuple(zip(edges, edges[1:], strict=False)):
            raise ValueError("spans must be the neighbours of boundaries")
        if not set(self.activations) <= set(edges[1:]):
            raise ValueError("every activation must stand on a boundary other than 0")
        if not set(self.added_activations) <= set(self.activations):
            raise ValueError("added_activations must be among the activations")
        return self

    @classmethod
    def build(
        cls,
        boundaries: tuple[int, ...],
        activations: tuple[int, ...],
        **rest: object,
    ) -> Self:
        """A plan from S and A; 0 may be left out of neither, spans are derived."""
        edges = tuple(sorted(boundaries))
        spans = tuple(zip(edges, edges[1:], strict=False))
        return cls.model_validate(
            dict(
                boundaries=edges,
                spans=spans,
                activations=tuple(sorted(activations)),
                **rest,
            )
        )

    @property
    def merged(self) -> tuple[Span, ...]:
        """The spans of more than one layer."""
        return tuple(Span(*s) for s in self.spans if s[1] - s[0] > 1)

    @property
    def digest(self) -> str:
        """The digest of what decides the network; times and importances are left out."""
        return digest(
            {
                "blueprint": self.blueprint,
                "choices": [[start, stop, "merge"] for start, stop in self.spans],
                "activations": self.activations,
                "added_activations": self.added_activations,
            }
        )

    def to_json(self) -> str:
        return self.model_dump_json(indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes, source: object = "plan") -> Self:
        """Read what `to_json` wrote.

        Raises:
            BadInput: not a plan; names the first faulty field.
        """
        return parse(cls, text, source)


def keep_everything(blueprint: Blueprint) -> Plan:
    """The plan that changes nothing: every position a boundary, every activation kept."""
    depth = blueprint.depth
    return Plan.build(
        tuple(range(depth + 1)),
        tuple(p for p in range(1, depth + 1) if blueprint.has_activation(p)),
        blueprint=blueprint.digest,
        input=blueprint.input,
    )
