"""What a plan has to keep to, besides its budget."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from dpcompress.blueprint.data import Frozen
from dpcompress.settings.options import Panel, Shown

_DEEPEST = 100_000


def parse_ranges(value: Any) -> Any:
    """Read "3,5-7" as ((3, 3), (5, 7)); leave what is no text as it is.

    Raises:
        ValueError: not numbers and ranges with commas between them.
    """
    if not isinstance(value, str):
        return value
    found = []
    for part in filter(None, value.replace(" ", "").split(",")):
        first, dash, last = part.partition("-")
        numeric = first.isascii() and first.isdigit()
        if dash:
            numeric = numeric and last.isascii() and last.isdigit()
        if not numeric or len(part) > 12 or int(last or first) < int(first):
            raise ValueError(f"{part!r} is no number or range, such as 3 or 3,5-7")
        found.append((int(first), int(last or first)))
    return tuple(found)


def parse_numbers(value: Any) -> Any:
    """Read "3,5-7" as (3, 5, 6, 7), ranges being cut where no network is that deep.

    Raises:
        ValueError: not numbers and ranges with commas between them.
    """
    if not isinstance(value, str):
        return value
    return tuple(
        number
        for first, last in parse_ranges(value)
        for number in range(first, min(last, first + _DEEPEST) + 1)
    )


Numbers = Annotated[tuple[int, ...], BeforeValidator(parse_numbers)]
Ranges = Annotated[tuple[tuple[int, int], ...], BeforeValidator(parse_ranges)]


class Decisions(Frozen):
    """The decisions forced on a plan: activations by position, layers by number."""

    keep: Annotated[
        Numbers,
        Shown("NUMBERS", Panel.DECISIONS),
        Field(description="Activations that have to stay."),
    ] = ()
    drop: Annotated[
        Numbers,
        Shown("NUMBERS", Panel.DECISIONS),
        Field(description="Activations that have to go."),
    ] = ()
    never_merge: Annotated[
        Numbers,
        Shown("NUMBERS", Panel.DECISIONS),
        Field(description="Layers that stay convolutions of their own."),
    ] = ()
    merge: Annotated[
        Ranges,
        Shown("NUMBERS", Panel.DECISIONS),
        Field(
            description="Layers that end up in one convolution, as in 4-6; a single "
            "layer merges with a neighbour."
        ),
    ] = ()


class Caps(Frozen):
    """The limits on the convolutions of the planned network: two sums and a peak."""

    max_params: Annotated[
        float | None,
        Shown(panel=Panel.LIMITS),
        Field(description="Parameters of all convolutions. Without it: any number."),
    ] = None
    max_macs: Annotated[
        float | None,
        Shown(panel=Panel.LIMITS),
        Field(
            description="Multiply-accumulates of all convolutions, for one image. "
            "Without it: any number."
        ),
    ] = None
    max_activations: Annotated[
        float | None,
        Shown(panel=Panel.LIMITS),
        Field(
            description="Numbers that a convolution holds at once (input, output, "
            "operand of its add), for one image. Without it: any number."
        ),
    ] = None
