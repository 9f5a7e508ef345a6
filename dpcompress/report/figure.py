"""Colours and file format that all pictures share."""

from __future__ import annotations

import io

from matplotlib.figure import Figure

# The fate of an activation.
KEPT = "#3b6ea8"  # stays
ADDED = "#e08a1e"  # new: the original has none there
REMOVED = "#d5d9de"  # of the original, gone
LINEAR = "#ffffff"  # the original has none there either

CHOSEN = "#c0392b"  # the chosen plan


def to_png(figure: Figure, dots_per_inch: int = 150) -> bytes:
    """The figure as PNG; equal figures give equal bytes."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=dots_per_inch, metadata={"Software": None})
    return file.getvalue()
