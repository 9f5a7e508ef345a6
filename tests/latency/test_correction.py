"""The fit of a table to whole networks."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpcompress.latency.correction import fit

times = st.floats(0.1, 100)


@given(times, st.floats(1.1, 5), st.floats(0.1, 3), st.floats(0, 10))
def test_exact_measurements_give_back_factor_and_constant(
    fast: float, spread: float, factor: float, constant: float
):
    sums = fast * np.array([1.0, (1 + spread) / 2, spread])
    found = fit(sums, factor * sums + constant)
    assert found == pytest.approx((factor, constant), rel=1e-6, abs=1e-6)


@given(st.lists(st.tuples(times, times), min_size=2, max_size=6))
def test_neither_is_ever_negative(pairs: list[tuple[float, float]]):
    sums, measured = np.array(pairs).T
    factor, constant = fit(sums, measured)
    assert factor >= 0
    assert constant >= 0
