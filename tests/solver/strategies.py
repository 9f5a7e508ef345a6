"""Random instances of the compression problem, small enough to enumerate."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from hypothesis import strategies as st

from dpcompress.tables import ImportanceTable, LatencyTable


@dataclass(frozen=True)
class Instance:
    """Dense arrays, nan where a row is missing: times[i, j, b], scores[i, j, a, b]."""

    times: np.ndarray
    scores: np.ndarray
    other: np.ndarray
    keep: tuple[int, ...] = ()
    drop: tuple[int, ...] = ()
    never_merge: tuple[int, ...] = ()
    merge: tuple[tuple[int, int], ...] = ()
    fixed_ms: float = 0.0

    @property
    def depth(self) -> int:
        return len(self.times) - 1

    @property
    def forced(self) -> dict[str, tuple]:
        return {
            "keep": self.keep,
            "drop": self.drop,
            "never_merge": self.never_merge,
            "merge": self.merge,
        }

    def latency_table(self, values: np.ndarray | None = None) -> LatencyTable:
        values = self.times if values is None else values
        i, j, b = np.nonzero(~np.isnan(values))
        frame = pd.DataFrame(
            {"start": i, "stop": j, "latency_ms": values[i, j, b], "act_stop": b}
        )
        return LatencyTable(frame, {"fixed_ms": self.fixed_ms})

    def importance_table(self) -> ImportanceTable:
        i, j, a, b = np.nonzero(~np.isnan(self.scores))
        columns = {"start": i, "stop": j, "act_start": a, "act_stop": b}
        return ImportanceTable(
            pd.DataFrame(columns | {"importance": self.scores[i, j, a, b]})
        )


def random_instance(
    depth: int, seed: int, holes: float = 0.0, whole: bool = False, **forced: tuple
) -> Instance:
    """`holes`: share of rows left out; `whole`: small whole numbers, for many ties."""
    rng = np.random.default_rng(seed)
    shape = (depth + 1, depth + 1)

    def draw(*more: int) -> np.ndarray:
        size = (*shape, *more)
        return (
            rng.integers(0, 5, size).astype(float) if whole else rng.uniform(0, 3, size)
        )

    length = np.arange(depth + 1)[None, :] - np.arange(depth + 1)[:, None]
    times = draw(2) + np.maximum(length, 0)[..., None] ** rng.uniform(0, 1.5)
    scores = draw(2, 2) - 2.0 * np.maximum(length, 0)[..., None, None]
    other = draw(2)
    for array in (times, scores, other):
        array[length <= 0] = np.nan
    times[(rng.random(shape) < holes) & (length > 1)] = np.nan
    scores[(rng.random(shape) < holes) & (length > 1)] = np.nan
    if rng.random() < 0.5:
        times[:, :, 1] = times[:, :, 0]
    # Where the original has an activation there is no row of flag 0.
    active = rng.random(depth + 1) < 0.6
    scores[active, :, 0, :] = np.nan
    scores[:, active, :, 0] = np.nan
    scores[0, :, 0, :] = np.nan
    fixed_ms = float(rng.choice([0.0, 0.7]))
    return Instance(times, scores, other, fixed_ms=fixed_ms, **forced)


@st.composite
def instances(draw: st.DrawFn, most: int = 8, force: bool = False) -> Instance:
    depth = draw(st.integers(1, most))
    forced: dict[str, tuple] = {}
    if force:
        numbers = st.integers(1, depth)
        keep = draw(st.sets(numbers, max_size=2))
        forced["keep"] = tuple(keep)
        forced["drop"] = tuple(draw(st.sets(numbers, max_size=2)) - keep)
        forced["never_merge"] = tuple(draw(st.sets(numbers, max_size=2)))
        spans = st.tuples(st.integers(0, depth), st.integers(0, depth))
        spans = spans.filter(lambda span: span[0] < span[1])
        forced["merge"] = tuple(draw(st.sets(spans, max_size=1)))
    return random_instance(
        depth,
        draw(st.integers(0, 2**32 - 1)),
        draw(st.sampled_from([0.0, 0.3, 0.7])),
        draw(st.booleans()),
        **forced,
    )
