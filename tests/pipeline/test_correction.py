"""The correction of a table by whole networks."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpcompress.pipeline.whole_networks import (
    correct,
    factor_and_constant,
    is_corrected,
    uncorrected_ms,
)
from dpcompress.tables import LatencyTable

times = st.floats(0.1, 100)


@given(times, st.floats(1.1, 5), st.floats(0.1, 3), st.floats(0, 10))
def test_exact_measurements_give_back_factor_and_constant(
    fast: float, spread: float, factor: float, constant: float
):
    sums = fast * np.array([1.0, (1 + spread) / 2, spread])
    found = factor_and_constant(sums, factor * sums + constant)
    assert found == pytest.approx((factor, constant), rel=1e-6, abs=1e-6)


@given(st.lists(st.tuples(times, times), min_size=2, max_size=6))
def test_neither_is_ever_negative(pairs: list[tuple[float, float]]):
    sums, measured = np.array(pairs).T
    factor, constant = factor_and_constant(sums, measured)
    assert factor >= 0
    assert constant >= 0


def table() -> LatencyTable:
    rows = {"start": [0, 1, 0], "stop": [1, 2, 2], "latency_ms": [2.0, 4.0, 3.0]}
    frame = pd.DataFrame(rows).assign(spread_ms=0.1)
    return LatencyTable(frame, {"e2e_ms": "7", "fixed_ms": "1", "engine": "x"})


def test_a_corrected_table_predicts_what_was_measured() -> None:
    """The merged network took 3.5 ms, the original 5: 3c + F and 6c + F, by hand."""
    found = correct(table(), np.array([3.0, 6.0]), np.array([3.5, 5.0]))
    assert found.frame["latency_ms"].tolist() == pytest.approx([1.0, 1.5, 2.0])
    assert found.frame["spread_ms"].tolist() == pytest.approx([0.05] * 3)
    assert found.fixed_ms == pytest.approx(2.0)
    assert found.e2e_ms == pytest.approx(5.0)
    assert found.header["calibration"] == "0.5"
    assert float(found.header["calibration_error"]) == pytest.approx(0, abs=1e-4)
    assert found.header["engine"] == "x"
    # What the table said before can be told: rows / 0.5 and the old fixed part.
    assert is_corrected(found) and not is_corrected(table())
    assert uncorrected_ms(found, 2.0 + 1.5) == pytest.approx(1 + 3)
    assert uncorrected_ms(table(), 4.0) == 4.0
    assert found.header["uncorrected_e2e_ms"] == "7.0"
    older = dict(found.header)
    del older["uncorrected_fixed_ms"]
    assert uncorrected_ms(LatencyTable(found.frame, older), 3.5) is None


@pytest.mark.parametrize("sums", [[6.0], [5.8, 6.0]])
def test_too_little_to_tell_a_factor_leaves_the_table_as_it_is(sums: list[float]) -> None:
    before = table()
    assert correct(before, np.array(sums), np.array(sums) * 2) is before
