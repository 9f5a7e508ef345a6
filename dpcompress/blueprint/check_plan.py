"""Check that a plan can be carried out on the network of a blueprint."""

from __future__ import annotations

from dpcompress.blueprint.data import Blueprint, Span
from dpcompress.blueprint.examine import Illegal, MergedSpan, examine
from dpcompress.blueprint.plan import Plan
from dpcompress.errors import BadInput, IllegalMerge


def check_plan(blueprint: Blueprint, plan: Plan) -> list[MergedSpan]:
    """Check a plan and examine its spans, in order.

    Raises:
        IllegalMerge: the plan is for another blueprint, or asks for what cannot be;
            names the span and the reason.
        BadInput: a span is to be run in another way than "merge".
    """
    if plan.boundaries[-1] != blueprint.depth:
        raise IllegalMerge(
            f"The plan is for {plan.boundaries[-1]} layers, the network has "
            f"{blueprint.depth}.",
            "Use the model and the input size that the plan was made for.",
        )
    if plan.blueprint and plan.blueprint != blueprint.digest:
        raise IllegalMerge(
            f"The plan is for another network (blueprint {plan.blueprint}, this one is "
            f"{blueprint.digest}).",
            "Use the model and the input size that the plan was made for.",
        )
    for position in plan.activations:
        added = position in plan.added_activations
        if added == blueprint.has_activation(position):
            fault = "has one already" if added else "has none"
            raise IllegalMerge(
                f"The plan {'adds' if added else 'keeps'} the activation at position "
                f"{position}, where the network {fault}.",
                "Mark added activations, and only those, in added_activations.",
            )
    spans = []
    for choice in plan.choices:
        if choice.way != "merge":
            raise BadInput(
                f"The plan runs layers {choice.start + 1} to {choice.stop} in the way "
                f"{choice.way!r}, which this version does not know.",
                "Solve again, or use the version that wrote the plan.",
            )
        found = examine(blueprint, Span(choice.start, choice.stop))
        if isinstance(found, Illegal):
            raise IllegalMerge(
                f"Span {choice.start} to {choice.stop} cannot become one convolution: "
                f"{found.why}.",
                "See `dpcompress inspect MODEL --spans`.",
            )
        spans.append(found)
    return spans
