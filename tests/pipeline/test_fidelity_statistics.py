import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kendalltau

from dpcompress.pipeline.whole_networks import Fidelity, Prediction, kendall


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=2))
def test_tau_is_what_scipy_computes(pairs: list[tuple[int, int]]) -> None:
    a, b = (list(map(float, column)) for column in zip(*pairs, strict=True))
    wanted = kendalltau(a, b).statistic
    assert kendall(a, b) == pytest.approx(wanted, nan_ok=True)


def test_statistics_by_hand() -> None:
    runs = [(11.0, 10.0), (18.0, 20.0), (30.0, 30.0)]
    found = Fidelity(tuple(Prediction((0, 1), p, p, m, 0.1) for p, m in runs))
    assert found.mean_error == pytest.approx(0.2 / 3)
    assert found.bias == pytest.approx(0)
    assert abs(found.worst.error) == pytest.approx(0.1)
    assert found.tau == 1
    assert "6.7%" in found.sentence and found.summary["networks"] == 3
    assert math.isnan(Fidelity(found.networks[:1]).tau)
