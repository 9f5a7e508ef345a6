"""The names that models go by: torchvision:NAME, timm:NAME, path.py:factory."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from dpcompress.errors import UsageError


def split_spec(spec: str) -> tuple[str, str]:
    """Split a model's name into its library, or file, and the name in it.

    Raises:
        UsageError: not the name of a model.
    """
    kind, colon, name = spec.rpartition(":")
    if colon and name and (kind in ("torchvision", "timm") or kind.endswith(".py")):
        return kind, name
    raise UsageError(
        f"{spec} does not name a model.",
        "Write torchvision:NAME, timm:NAME or path.py:function.",
    )


def unknown_model(what: str, name: str, known: Iterable[str]) -> UsageError:
    """Make the error for an unknown model, with the names closest to it."""
    close = difflib.get_close_matches(name, list(known), n=3)
    remedy = f"Did you mean {' or '.join(close)}?" if close else "Check the spelling."
    return UsageError(f"There is no model {what}.", remedy)
