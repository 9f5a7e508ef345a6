"""The structure of a plan: its convolutions below the layers that they are made of."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, PathPatch, Rectangle
from matplotlib.path import Path as Outline

from dpcompress.blueprint import Blueprint, MergedSpan, Plan, Span, examine
from dpcompress.blueprint.chains import skips
from dpcompress.report.figure import ADDED, KEPT, LINEAR, REMOVED, to_png

_LABEL = {
    KEPT: "activation stays",
    ADDED: "activation added",
    REMOVED: "activation removed",
    LINEAR: "no activation in the original",
}
_TOP, _BOTTOM, _HEIGHT = 1.5, 0.0, 0.7


def plot_structure(blueprint: Blueprint, plan: Plan) -> bytes:
    """Draw a plan as PNG: above the layers 1..L, below what they merge to.

    A box is as wide as its layers are many, labelled with its kernel size, and coloured
    by what happens to the activation at its end. Arcs are the original's residual
    connections.
    """
    depth = blueprint.depth
    figure = Figure(
        figsize=(min(max(7.0, 0.24 * depth), 40.0), 2.9), layout="constrained"
    )
    axes = figure.add_subplot()
    for number in range(1, depth + 1):
        conv = blueprint.ops[blueprint.layers[number - 1].conv].conv
        assert conv is not None
        text = _kernel(conv.kernel)
        _box(axes, number - 1, number, _TOP, _fate(blueprint, plan, number), text)
    for start, stop in plan.spans:
        merged = examine(blueprint, Span(start, stop))
        text = _kernel(merged.conv.kernel) if isinstance(merged, MergedSpan) else "?"
        colour = _fate(blueprint, plan, stop)
        _box(axes, start, stop, _BOTTOM, LINEAR if colour == REMOVED else colour, text)
        for edge in (start, stop):
            axes.plot(
                [edge, edge], [_BOTTOM + _HEIGHT, _TOP], color="#999", linewidth=0.6
            )
    for skip in skips(blueprint):
        if skip.source is not None:
            _arc(axes, skip.source, skip.target)
    axes.set_xlim(-0.5, depth + 0.5)
    axes.set_ylim(-0.2, _TOP + _HEIGHT + 1.0)
    axes.set_yticks(
        [_BOTTOM + _HEIGHT / 2, _TOP + _HEIGHT / 2],
        [f"merged: {len(plan.spans)}", f"original: {depth}"],
    )
    axes.set_xticks(range(0, depth + 1, 5 if depth > 20 else 1))
    axes.set_xlabel("position (after layer n)")
    axes.tick_params(length=0, labelsize=8)
    axes.spines[:].set_visible(False)
    handles = [
        Patch(facecolor=colour, edgecolor="#333", linewidth=0.6, label=label)
        for colour, label in _LABEL.items()
    ]
    figure.legend(
        handles=handles, loc="outside upper center", ncols=4, frameon=False, fontsize=8
    )
    return to_png(figure)


def _fate(blueprint: Blueprint, plan: Plan, position: int) -> str:
    """The colour of what happens to the activation at a position."""
    if position in plan.added_activations:
        return ADDED
    if position in plan.activations:
        return KEPT
    return REMOVED if blueprint.has_activation(position) else LINEAR


def _kernel(kernel: tuple[int, int]) -> str:
    """A kernel size as a short label: "3", or "1x3" if it is not square."""
    return str(kernel[0]) if kernel[0] == kernel[1] else f"{kernel[0]}x{kernel[1]}"


def _box(
    axes: Axes, start: float, stop: float, bottom: float, colour: str, text: str
) -> None:
    gap = 0.08
    axes.add_patch(
        Rectangle(
            (start + gap, bottom),
            stop - start - 2 * gap,
            _HEIGHT,
            facecolor=colour,
            edgecolor="#333",
            linewidth=0.6,
        )
    )
    ink = "white" if colour == KEPT else "#222"
    middle = (start + stop) / 2
    axes.text(
        middle,
        bottom + _HEIGHT / 2,
        text,
        ha="center",
        va="center",
        fontsize=7,
        color=ink,
    )


def _arc(axes: Axes, source: int, target: int) -> None:
    top = _TOP + _HEIGHT
    rise = min(0.25 + 0.1 * (target - source), 0.9)
    curve = [(source, top), (source, top + rise), (target, top + rise), (target, top)]
    codes = [Outline.MOVETO, Outline.CURVE4, Outline.CURVE4, Outline.CURVE4]
    axes.add_patch(
        PathPatch(Outline(curve, codes), fill=False, edgecolor="#777", linewidth=0.8)
    )
