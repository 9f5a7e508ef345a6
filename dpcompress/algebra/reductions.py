"""Smaller convolutions from one least-squares problem: fewer taps, groups, low rank."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True)
class Regression:
    """The normal equations of a ridge regression Y ≈ X·W + b with a free bias.

    gram: XᵀX of the centred inputs, (n, n); cross: XᵀY of the centred inputs and
        outputs, (n, m); mean_x: (n,); mean_y: (m,); spread: Σ‖Y − mean‖²; all float64.
    ridge: λ, added to the diagonal of `gram`.
    """

    gram: Tensor
    cross: Tensor
    mean_x: Tensor
    mean_y: Tensor
    spread: float
    ridge: float

    @cached_property
    def system(self) -> Tensor:
        """The matrix A = gram + λI."""
        return self.gram + self.ridge * torch.eye(len(self.gram), dtype=torch.float64)

    def solve(self, rows: Tensor | None = None) -> Tensor:
        """Find W on some of the inputs (all by default): (n, m), zero in the other
        rows."""
        rows = torch.arange(len(self.gram)) if rows is None else rows
        weight = torch.zeros_like(self.cross)
        factor = torch.linalg.cholesky(self.system[rows][:, rows])
        weight[rows] = torch.cholesky_solve(self.cross[rows], factor)
        return weight

    def solve_in_groups(self, groups: list[tuple[Tensor, Tensor]]) -> Tensor:
        """Find W of one regression per group, (input rows, output columns): each output
        reads the rows of its own group only."""
        weight = torch.zeros_like(self.cross)
        for rows, columns in groups:
            factor = torch.linalg.cholesky(self.system[rows][:, rows])
            right = self.cross[rows][:, columns]
            weight[rows[:, None], columns] = torch.cholesky_solve(right, factor)
        return weight

    def low_rank(self, rank: int) -> tuple[Tensor, Tensor]:
        """The best W of rank r as a product (n, r) · (r, m): reduced-rank regression
        (Izenman 1975). With A = LLᵀ it is the truncated SVD of L⁻¹B = USVᵀ, W = L⁻ᵀU·SVᵀ.
        """
        factor = torch.linalg.cholesky(self.system)
        white = torch.linalg.solve_triangular(factor, self.cross, upper=False)
        u, s, v = torch.linalg.svd(white, full_matrices=False)
        root = s[:rank].sqrt()
        first = torch.linalg.solve_triangular(factor.T, u[:, :rank] * root, upper=True)
        return first, root[:, None] * v[:rank]

    def bias(self, weight: Tensor) -> Tensor:
        """Find b, (m,), that makes the mean of the outputs right."""
        return self.mean_y - self.mean_x @ weight

    def residual(self, weight: Tensor) -> float:
        """The root mean square error of W, over the outputs' standard deviation."""
        explained = (
            2 * (self.cross * weight).sum() - (weight * (self.gram @ weight)).sum()
        )
        left = (self.spread - float(explained)) / max(self.spread, 1e-300)
        return max(left, 0.0) ** 0.5
