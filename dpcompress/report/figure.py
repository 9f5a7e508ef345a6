"""Colours and file form that all pictures share."""

from __future__ import annotations

import io

from matplotlib.figure import Figure

KEPT, ADDED, REMOVED, LINEAR, CHOSEN = (
    *("#3b6ea8", "#e08a1e", "#d5d9de", "#ffffff", "#c0392b"),
)
"""An activation's fate: stays, is new, is removed, was never there; the chosen plan."""


def to_png(figure: Figure, dots_per_inch: int = 150) -> bytes:
    """The figure as PNG; equal figures give equal bytes."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=dots_per_inch, metadata={"Software": None})
    return file.getvalue()
