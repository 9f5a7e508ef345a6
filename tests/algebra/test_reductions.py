"""Smaller fits from one Gram matrix against fits that are made for themselves."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from dpcompress.algebra.reductions import Regression

RIDGE = 1e-2


def samples(seed: int) -> tuple[Tensor, Tensor]:
    """X (80, 8) of correlated inputs and Y (80, 6) that follows it with noise."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*size: int) -> Tensor:
        return torch.randn(*size, generator=generator, dtype=torch.float64)

    x = draw(80, 8) @ draw(8, 8) + draw(8)
    return x, x @ draw(8, 6) + draw(80, 6) + draw(6)


def regression(x: Tensor, y: Tensor) -> Regression:
    mean_x, mean_y = x.mean(0), y.mean(0)
    dx, dy = x - mean_x, y - mean_y
    spread = float(dy.square().sum())
    return Regression(dx.T @ dx, dx.T @ dy, mean_x, mean_y, spread, RIDGE)


def objective(x: Tensor, y: Tensor, weight: Tensor) -> float:
    """Σ‖Y − X·W − b‖² + λ‖W‖², b the best one."""
    error = y - x @ weight
    error = error - error.mean(0)
    return float(error.square().sum() + RIDGE * weight.square().sum())


def alone(x: Tensor, y: Tensor) -> Tensor:
    """The ridge regression by an augmented least-squares problem with a bias column."""
    inputs, size = torch.cat([x, torch.ones(len(x), 1)], 1), x.shape[1]
    ridge = RIDGE**0.5 * torch.eye(size, size + 1, dtype=torch.float64)
    targets = torch.cat([y, torch.zeros(size, y.shape[1])])
    return torch.linalg.lstsq(torch.cat([inputs, ridge]), targets).solution[:-1]


@given(st.integers(0, 10_000), st.sets(st.integers(0, 7), min_size=1))
def test_a_fit_on_some_inputs_is_the_fit_made_of_them_alone(seed: int, rows: set[int]):
    (x, y), kept = samples(seed), torch.tensor(sorted(rows))
    found = regression(x, y)
    weight = found.solve(kept)
    torch.testing.assert_close(weight[kept], alone(x[:, kept], y), rtol=1e-6, atol=1e-8)
    assert not weight[[r for r in range(8) if r not in rows]].any()
    error = y - x @ weight - found.bias(weight)
    assert error.mean(0).abs().max() < 1e-9
    spread = (y - y.mean(0)).square().mean().sqrt()
    assert found.residual(weight) == pytest.approx(
        float(error.square().mean().sqrt() / spread), rel=1e-6
    )


def test_groups_are_fits_of_their_own():
    x, y = samples(0)
    groups = [
        (torch.arange(4), torch.arange(3)),
        (torch.arange(4, 8), torch.arange(3, 6)),
    ]
    weight = regression(x, y).solve_in_groups(groups)
    for rows, columns in groups:
        own = weight[rows][:, columns]
        torch.testing.assert_close(own, alone(x[:, rows], y[:, columns]))
        weight[rows[:, None], columns] = 0
    assert not weight.any()


@given(st.integers(0, 10_000), st.integers(1, 6))
def test_no_other_matrix_of_that_rank_is_better(seed: int, rank: int):
    x, y = samples(seed)
    first, second = regression(x, y).low_rank(rank)
    assert first.shape == (8, rank) and second.shape == (rank, 6)
    best = objective(x, y, first @ second)
    generator = torch.Generator().manual_seed(seed)
    for scale in (1e-3, 1e-1):
        for _ in range(20):
            shifts = [
                scale * torch.randn(m.shape, generator=generator, dtype=torch.float64)
                for m in (first, second)
            ]
            other = (first + shifts[0]) @ (second + shifts[1])
            assert objective(x, y, other) >= best * (1 - 1e-9)
    if rank == 6:
        torch.testing.assert_close(first @ second, regression(x, y).solve())
