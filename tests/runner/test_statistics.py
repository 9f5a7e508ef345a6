import random
from statistics import median

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from dpcompress.runner.statistics import half_iqr, median_interval, quantile

times = st.lists(st.floats(0.01, 1e4), min_size=1, max_size=60)


@given(times)
def test_interval_holds_the_median(
    values: list[float],
) -> None:
    low, high = median_interval(values)
    assert min(values) <= low <= median(values) <= high <= max(values)


@given(times, st.randoms())
def test_order_does_not_matter(values: list[float], rng: random.Random) -> None:
    shuffled = rng.sample(values, len(values))
    assert median_interval(values) == median_interval(shuffled)


@pytest.mark.parametrize("n", range(6, 100))
def test_interval_is_the_narrowest_with_95_percent(n: int) -> None:
    low, high = median_interval([float(i) for i in range(n)])
    assert low + high == n - 1
    # The low end is above the true median if at most `low` values lie below that.
    assert binom.cdf(low, n, 0.5) <= 0.025 < binom.cdf(low + 1, n, 0.5)


def test_by_hand() -> None:
    values = [4.0, 1.0, 3.0, 2.0, 5.0]
    assert median_interval(values) == (1.0, 5.0)
    assert quantile(values, 0.5) == 3.0
    assert half_iqr(values) == 1.0
