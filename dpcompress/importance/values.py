"""Importances from raw scores: normalised, then extended."""

from __future__ import annotations

import pandas as pd

from dpcompress.errors import BadInput


def normalise(frame: pd.DataFrame, alpha: float) -> tuple[pd.DataFrame, float]:
    """Subtract `alpha` times the mean of the single-layer rows; return that mean too.

    Importances add up along a network and most are negative: without the shift the sum
    would favour few, long spans whatever they cost (Kim et al. 2023, appendix).

    Raises:
        BadInput: no single-layer rows.
    """
    single = frame["importance"][frame["stop"] - frame["start"] == 1]
    if single.empty:
        raise BadInput(
            "No span of a single layer was scored.",
            "Score single layers too: the others are held against their mean.",
        )
    mean = float(single.mean())
    return frame.assign(importance=frame["importance"] - alpha * mean), mean


def extend(frame: pd.DataFrame) -> pd.DataFrame:
    """Raise each importance to at least that of its parts, joined without an activation.

    I_ext[i,j,a,b] = max(I[i,j,a,b], max over m of I_ext[i,m,a,0] + I[m,j,0,b]). The
    rows stay; `via` is the m that gave the value, or -1 where the score itself did.
    """
    keys = frame[["start", "stop", "act_start", "act_stop"]].itertuples(index=False)
    scored = dict(zip(map(tuple, keys), frame["importance"], strict=True))
    from_linear: dict[int, list[tuple[int, int, float]]] = {}
    for (start, stop, a, b), value in scored.items():
        if a == 0:
            from_linear.setdefault(start, []).append((stop, b, value))
    final = {}
    for start, act_start in sorted({(i, a) for i, _, a, _ in scored}):
        # best[stop, flag]: I_ext from (start, act_start), with the last break taken.
        best = {
            (j, b): (value, -1)
            for (i, j, a, b), value in scored.items()
            if (i, a) == (start, act_start)
        }
        reached = sorted({j for j, _ in best} | set(from_linear))
        for middle in (m for m in reached if m > start):
            if (middle, 0) not in best:
                continue
            before = best[middle, 0][0]
            for stop, flag, value in from_linear.get(middle, ()):
                if (stop, flag) not in best or before + value > best[stop, flag][0]:
                    best[stop, flag] = (before + value, middle)
        final.update({(start, j, act_start, b): v for (j, b), v in best.items()})
    rows = [final[key] for key in scored]
    return frame.assign(importance=[v for v, _ in rows], via=[m for _, m in rows])
