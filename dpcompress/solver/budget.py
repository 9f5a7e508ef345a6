"""Read budgets as people write them."""

from __future__ import annotations

import math
import re

from dpcompress.errors import UsageError

_BUDGET = re.compile(
    r"\s*(\d+\.?\d*|\.\d+)((?:e[+-]?\d+)?)\s*(ms|s|%|x)?\s*", re.ASCII | re.IGNORECASE
)


def parse_budget(text: str, original_ms: float | None) -> float:
    """Read a budget: the milliseconds that `text` allows, end to end.

    "12.5ms", "25" (ms) and "0.02s" are times, "70%" a share of the original network's
    latency `original_ms`, "1.5x" a speed-up over it.

    Raises:
        UsageError: not a budget, or relative to an original that is unknown.
    """
    match = _BUDGET.fullmatch(text)
    value = float(match[1] + match[2]) if match else math.nan
    if match is None or not 0 < value < math.inf:
        raise UsageError(
            f"{text!r} is not a budget.", 'Write "12.5ms", "25", "70%" or "1.5x".'
        )
    unit = (match[3] or "ms").lower()
    if unit in ("ms", "s"):
        return value * (1000 if unit == "s" else 1)
    if original_ms is None:
        raise UsageError(
            f"{text!r} needs the original network's latency, which the table lacks.",
            "Give the budget in ms, or add e2e_ms or all single-layer rows to the table.",
        )
    return original_ms * value / 100 if unit == "%" else original_ms / value
