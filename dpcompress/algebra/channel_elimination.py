"""Which channels of a hidden tensor to keep: greedy elimination in closed form."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_COMPACT = 0.8  # matrices shrink when this share of their rows is left


@dataclass(frozen=True)
class Elimination:
    """The order in which units (channels, or groups of them) are given up.

    order: (U,) units, from the first one removed to the last.
    loss: (U + 1,) sum of squared errors that k removals add to the full fit, the reader
        refitted each time; rises with k, 0 at k = 0.
    """

    order: Tensor
    loss: Tensor

    def kept(self, count: int) -> Tensor:
        """The `count` units that are removed last, in their original order.

        Raises:
            ValueError: not between 1 and the number of units.
        """
        if not 1 <= count <= len(self.order):
            raise ValueError(f"{count} of {len(self.order)} units cannot be kept")
        return self.order[len(self.order) - count :].sort().values


def eliminate(system: Tensor, right: Tensor, units: Tensor) -> Elimination:
    """Remove rows of a least-squares problem unit by unit, the cheapest one each time.

    The problem is min ‖X·W − Y‖² + λ‖W‖² with A = XᵀX + λI and B = XᵀY; W = A⁻¹B.
    Without the rows S of W the minimum rises by tr(W_Sᵀ (A⁻¹)_SS⁻¹ W_S), and the rest is
    W − A⁻¹_:S (A⁻¹)_SS⁻¹ W_S: an exact refit at every step (the optimal brain surgeon of
    Hassibi & Stork 1993, for blocks). One run serves every width.

    Args:
        system: A, (n, n), symmetric positive definite, float64.
        right: B, (n, outputs).
        units: (U, r) rows of W that belong to each unit; together all n, each once.

    Raises:
        ValueError: A is not positive definite, or `units` do not cover its rows.
    """
    size = len(system)
    if not torch.equal(units.flatten().sort().values, torch.arange(size)):
        raise ValueError(f"the units do not hold each of {size} rows once")
    factor, failed = torch.linalg.cholesky_ex(system)
    if failed:
        raise ValueError("the system is not positive definite: add a ridge")
    inverse = torch.cholesky_inverse(factor)
    weight = inverse @ right
    rows, left = units, torch.arange(len(units))
    order, loss = [], [0.0]
    while len(left):
        if rows.numel() < _COMPACT * len(weight):
            flat = rows.flatten()
            inverse, weight = inverse[flat][:, flat].clone(), weight[flat]
            rows = torch.arange(len(flat)).reshape(rows.shape)
        blocks = inverse[rows[:, :, None], rows[:, None, :]]
        solved = torch.linalg.solve(blocks, weight[rows])
        costs = (weight[rows] * solved).sum((1, 2))
        at = int(costs.argmin())
        order.append(int(left[at]))
        loss.append(loss[-1] + max(float(costs[at]), 0.0))
        gone = inverse[:, rows[at]]
        weight.addmm_(gone, solved[at], alpha=-1)
        inverse.addmm_(gone, torch.linalg.solve(blocks[at], gone.T), alpha=-1)
        rows = torch.cat([rows[:at], rows[at + 1 :]])
        left = torch.cat([left[:at], left[at + 1 :]])
    return Elimination(torch.tensor(order), torch.tensor(loss, dtype=torch.float64))
