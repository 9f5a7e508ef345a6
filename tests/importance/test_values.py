from functools import cache

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpcompress.errors import BadInput
from dpcompress.importance import extend, normalise

Rows = dict[tuple[int, int, int, int], float]
KEYS = ["start", "stop", "act_start", "act_stop"]


def frame(rows: Rows) -> pd.DataFrame:
    return pd.DataFrame([(*k, v) for k, v in rows.items()], columns=[*KEYS, "importance"])


def test_normalise_gives_every_span_its_due() -> None:
    rows = {(0, 1, 1, 1): -1.0, (1, 2, 1, 1): -3.0, (0, 2, 1, 1): -5.0}
    final, mean = normalise(frame(rows), 1.5)
    assert mean == -2.0
    assert final["importance"].tolist() == [2.0, 0.0, -2.0]
    with pytest.raises(BadInput, match="single layer"):
        normalise(frame({(0, 2, 1, 1): 0.0}), 1.0)


@st.composite
def tables(draw: st.DrawFn) -> Rows:
    depth = draw(st.integers(1, 6))
    linear = draw(st.sets(st.integers(1, depth)))
    value = st.integers(-9, 9).map(float)
    return {
        (i, j, a, b): draw(value)
        for i in range(depth)
        for j in range(i + 1, depth + 1)
        if j == i + 1 or draw(st.booleans())
        for a in ((0, 1) if i in linear else (1,))
        for b in ((0, 1) if j in linear else (1,))
    }


@given(tables())
def test_extend_is_the_recursion_of_the_paper(rows: Rows) -> None:
    @cache
    def extended(i: int, j: int, a: int, b: int) -> float:
        parts = [
            extended(i, m, a, 0) + rows[m, j, 0, b]
            for m in range(i + 1, j)
            if (m, j, 0, b) in rows
        ]
        return max([rows.get((i, j, a, b), float("-inf")), *parts])

    result = extend(frame(rows))
    assert list(map(tuple, result[KEYS].values.tolist())) == list(rows)
    for key, value, via in zip(rows, result["importance"], result["via"], strict=True):
        assert value == extended(*key)
        if via == -1:
            assert value == rows[key]
        else:
            i, j, a, b = key
            assert i < via < j
            assert value == extended(i, via, a, 0) + rows[via, j, 0, b] > rows[key]
