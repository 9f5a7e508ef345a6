"""Tables of what the jobs found: results.csv and differences.csv."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import permutations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import Tensor

Row = dict[str, Any]


def packed(right: Tensor) -> str:
    """Which images were told right, (N,) bool, as hexadecimal digits."""
    return np.packbits(right.numpy()).tobytes().hex()


def unpacked(text: str, count: int) -> NDArray[np.bool_]:
    bits = np.frombuffer(bytes.fromhex(text), dtype=np.uint8)
    return np.unpackbits(bits, count=count).astype(bool)


def results(rows: Sequence[Row]) -> str:
    """CSV, one line per job."""
    return _csv(pd.DataFrame(rows).drop(columns="right"))


def differences(rows: Sequence[Row]) -> str:
    """CSV: by how much `method` is better than `against` at a budget, with the standard
    error that comes from the test images, which are the same for both, and the one over
    seeds (none where one of them has a single seed). A method without a budget is held
    against at all of them."""
    frame = pd.DataFrame(rows)
    budgets = sorted({row["budget"] for row in rows} - {1.0})
    found = []
    for budget in budgets:
        here = frame[frame["budget"].isin([1.0, budget])]
        groups = {str(method): group for method, group in here.groupby("method")}
        for method, against in permutations(groups, 2):
            if groups[method]["budget"].iloc[0] == budget:
                row = {"budget": budget, "method": method, "against": against}
                found.append(row | _difference(groups[method], groups[against]))
    return _csv(pd.DataFrame(found))


def _difference(ours: pd.DataFrame, theirs: pd.DataFrame) -> dict[str, float]:
    a, b = (_share_right(group) for group in (ours, theirs))
    over_seeds = [group["accuracy"].var() / len(group) for group in (ours, theirs)]
    return {
        "difference": round(float((a - b).mean()), 5),
        "error_images": round(float((a - b).std(ddof=1)) / math.sqrt(len(a)), 5),
        "error_seeds": round(math.sqrt(sum(over_seeds)), 5),
        "speedup": round(ours["speedup"].mean(), 4),
        "speedup_against": round(theirs["speedup"].mean(), 4),
    }


def _share_right(group: pd.DataFrame) -> NDArray[np.float64]:
    """Of the seeds, for each image."""
    pairs = zip(group["right"], group["test_images"], strict=True)
    return np.mean([unpacked(*pair) for pair in pairs], axis=0)


def _csv(frame: pd.DataFrame) -> str:
    return frame.to_csv(index=False, lineterminator="\n")
