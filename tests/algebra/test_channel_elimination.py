"""The elimination of channels against least squares over every subset."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from dpcompress.algebra.channel_elimination import eliminate

RIDGE = 1e-3


def problem(seed: int, channels: int, taps: int = 1) -> tuple[Tensor, Tensor]:
    """Samples of correlated channels, and outputs that read them: X and Y."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(channels, channels, generator=generator, dtype=torch.float64)
    x = torch.randn(60, channels * taps, generator=generator, dtype=torch.float64)
    x = (x.unflatten(1, (channels, taps)).transpose(1, 2) @ mix).transpose(1, 2)
    weight = torch.randn(channels * taps, 4, generator=generator, dtype=torch.float64)
    x = x.flatten(1)
    noise = torch.randn(60, 4, generator=generator, dtype=torch.float64)
    return x, x @ weight + noise


def subset_loss(x: Tensor, y: Tensor, rows: list[int]) -> float:
    """What a ridge regression on these columns leaves, by an augmented system."""
    kept = x[:, rows]
    extra = RIDGE**0.5 * torch.eye(len(rows), dtype=torch.float64)
    design = torch.cat([kept, extra])
    target = torch.cat([y, torch.zeros(len(rows), y.shape[1], dtype=torch.float64)])
    solution = torch.linalg.lstsq(design, target).solution
    return float((design @ solution - target).square().sum())


def eliminated(x: Tensor, y: Tensor, units: Tensor) -> tuple[list[int], list[float]]:
    system = x.T @ x + RIDGE * torch.eye(x.shape[1], dtype=torch.float64)
    found = eliminate(system, x.T @ y, units)
    return found.order.tolist(), found.loss.tolist()


@given(st.integers(0, 10_000), st.sampled_from([1, 2]))
def test_every_removal_is_the_cheapest_and_its_loss_is_exact(seed: int, taps: int):
    x, y = problem(seed, 6, taps)
    units = torch.arange(6 * taps).reshape(6, taps)
    order, loss = eliminated(x, y, units)
    full = subset_loss(x, y, list(range(6 * taps)))
    left = set(range(6))
    for step, unit in enumerate(order[:-1], 1):
        costs = {
            u: subset_loss(x, y, units[sorted(left - {u})].flatten().tolist())
            for u in left
        }
        assert costs[unit] == pytest.approx(min(costs.values()), rel=1e-6)
        assert loss[step] == pytest.approx(costs[unit] - full, rel=1e-6, abs=1e-8)
        left.remove(unit)


@given(st.integers(0, 10_000))
def test_greedy_is_near_the_best_subset(seed: int):
    x, y = problem(seed, 6)
    order, loss = eliminated(x, y, torch.arange(6)[:, None])
    full, nothing = subset_loss(x, y, [*range(6)]), float(y.square().sum())
    for removed in range(1, 6):
        subsets = combinations(range(6), 6 - removed)
        best = min(subset_loss(x, y, list(rows)) for rows in subsets) - full
        assert best * (1 - 1e-9) <= loss[removed]
        if removed == 1:
            assert loss[1] == pytest.approx(best, rel=1e-6)
        # What the greedy order explains beyond the mean: at least 60 % of the best.
        assert nothing - full - loss[removed] >= 0.6 * (nothing - full - best)


def test_dead_and_doubled_channels_go_first():
    x, y = problem(0, 6)
    x[:, 2] = 0.0
    x[:, 4] = x[:, 1]
    order, loss = eliminated(x, y, torch.arange(6)[:, None])
    assert set(order[:2]) in ({2, 1}, {2, 4})
    assert loss[2] < 1e-2 * loss[3]


def test_a_singular_system_and_wrong_units_are_refused():
    x, y = problem(0, 6)
    x[:, 2] = 0.0
    with pytest.raises(ValueError, match="ridge"):
        eliminate(x.T @ x, x.T @ y, torch.arange(6)[:, None])
    with pytest.raises(ValueError, match="each of 6 rows once"):
        eliminate(x.T @ x, x.T @ y, torch.arange(4)[:, None])
    found = eliminate(torch.eye(6).double(), x.T @ y, torch.arange(6)[:, None])
    with pytest.raises(ValueError, match="7 of 6"):
        found.kept(7)
