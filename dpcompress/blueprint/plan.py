"""The Plan: how every span of a network is run, and which activations stand."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any, Literal, Self

from pydantic import model_validator

from dpcompress.blueprint.data import Blueprint, Frozen, Span
from dpcompress.files import digest


class Choice(Frozen):
    """The way in which one span of a plan, layers start+1 .. stop, is run.

    The way "merge" makes one convolution of all its layers: a single one stays as it is.
    """

    start: int
    stop: int
    way: str = "merge"


class Plan(Frozen):
    """A decision about a whole network, as plain data.

    choices: the spans that the network is cut into, in order, without a gap.
    activations: A of the papers: positions where an activation stands.
    added_activations: those of `activations` where the original network has none.
    budget_ms: the end-to-end time that was asked for.
    predicted_ms: the sum of the latency table's rows and its fixed part.
    measured_ms: the network of this plan, built and timed; None if it was not.
    importance: sum over the importance table's rows.
    blueprint: digest of the Blueprint that the plan is for ("" if unknown).
    input: (C, H, W) that the blueprint was traced with, if known.

    Files of version 1 are read as well. Their `latency_ms` becomes `predicted_ms`, though
    for a plan that was chosen by measuring it is the measured time: such a file does not
    say which of the two it holds.
    """

    version: Literal[2] = 2
    choices: tuple[Choice, ...]
    activations: tuple[int, ...]
    added_activations: tuple[int, ...] = ()
    budget_ms: float | None = None
    predicted_ms: float | None = None
    measured_ms: float | None = None
    importance: float | None = None
    blueprint: str = ""
    input: tuple[int, int, int] | None = None

    @model_validator(mode="before")
    @classmethod
    def _read_version_1(cls, data: Any) -> Any:
        is_old = isinstance(data, dict) and data.get("version") == 1
        return _from_version_1(data) if is_old else data

    @model_validator(mode="after")
    def _check(self) -> Self:
        position = 0
        for choice in self.choices:
            if choice.start != position or choice.stop <= position:
                raise ValueError(
                    "the choices must rise from position 0, each from the boundary at "
                    "which the one before stops"
                )
            position = choice.stop
        if not self.choices:
            raise ValueError("there must be choices, with boundaries from 0 to L")
        if not set(self.activations) <= set(self.boundaries[1:]):
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
        """Make the plan that merges the layers between neighbouring boundaries.

        Args:
            boundaries: S of the papers, 0 and L included, in any order.
            activations: A of the papers, in any order.
            rest: further fields of the plan.

        >>> plan = Plan.build((0, 2, 3), (2, 3))
        >>> plan.spans
        (Span(start=0, stop=2), Span(start=2, stop=3))
        >>> plan.merged
        (Span(start=0, stop=2),)
        """
        spans = pairwise(sorted(boundaries))
        return cls.model_validate(
            {
                "choices": [Choice(start=start, stop=stop) for start, stop in spans],
                "activations": tuple(sorted(activations)),
                **rest,
            }
        )

    @property
    def spans(self) -> tuple[Span, ...]:
        """The span of each choice."""
        return tuple(Span(choice.start, choice.stop) for choice in self.choices)

    @property
    def boundaries(self) -> tuple[int, ...]:
        """The set S of the papers: 0 and the position at which each choice stops."""
        return (0, *(choice.stop for choice in self.choices))

    @property
    def merged(self) -> tuple[Span, ...]:
        """The spans of more than one layer."""
        return tuple(span for span in self.spans if span.length > 1)

    @property
    def digest(self) -> str:
        """Identify the network that the plan asks for: plans that differ only in times,
        budget or importance have the same digest."""
        return digest(
            {
                "blueprint": self.blueprint,
                "choices": [[c.start, c.stop, c.way] for c in self.choices],
                "activations": sorted(self.activations),
                "added_activations": sorted(self.added_activations),
            }
        )

    def to_json(self) -> str:
        """Write the plan as JSON text: a line for each field and for each choice."""
        fields = self.model_dump(mode="json")
        lines = {name: json.dumps(value) for name, value in fields.items()}
        choices = ",\n  ".join(map(json.dumps, fields["choices"]))
        lines["choices"] = f"[\n  {choices}\n ]"
        text = ",\n ".join(f'"{name}": {value}' for name, value in lines.items())
        return f"{{\n {text}\n}}\n"


def _from_version_1(data: dict[str, Any]) -> dict[str, Any]:
    """Translate the fields of version 1 to those of version 2."""
    fields = data | {"version": 2, "predicted_ms": data.get("latency_ms")}
    fields.pop("latency_ms", None)
    spans, boundaries = fields.pop("spans", None), fields.pop("boundaries", None)
    try:
        fields["choices"] = [{"start": start, "stop": stop} for start, stop in spans]
    except (TypeError, ValueError) as error:
        raise ValueError("spans must be pairs of positions") from error
    if boundaries != [0, *(choice["stop"] for choice in fields["choices"])]:
        raise ValueError("spans must be the neighbours of boundaries")
    return fields


def keep_everything(blueprint: Blueprint) -> Plan:
    """Make the plan that changes nothing: every layer alone, every activation kept."""
    depth = blueprint.depth
    return Plan.build(
        tuple(range(depth + 1)),
        tuple(p for p in range(1, depth + 1) if blueprint.has_activation(p)),
        blueprint=blueprint.digest,
        input=blueprint.input,
    )
