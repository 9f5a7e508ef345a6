"""Channel pruning by torch-pruning (`pip install torch-pruning`; only used here)."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

ROUND_TO = 8
"""Engines work on so many channels at once, and MobileNetV2's widths are multiples."""


def pruned(
    model: nn.Module, share: float, input_shape: tuple[int, int, int]
) -> nn.Module:
    """A copy of `model` with about `share` of the channels, everywhere alike, those with
    the largest norms over the groups that must go together (Fang et al. 2023)."""
    import torch_pruning

    network: Any = copy.deepcopy(model).eval().requires_grad_(True)
    heads = [m for m in network.modules() if isinstance(m, nn.Linear)]
    pruner = torch_pruning.pruner.MagnitudePruner(
        network,
        torch.zeros(1, *input_shape),
        importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
        pruning_ratio=1 - share,
        ignored_layers=heads[-1:],
        round_to=ROUND_TO,
    )
    pruner.step()
    result: nn.Module = network
    return result
