"""Small networks and data that train in a second."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import nn

from dpcompress.training import Data, load_data, seeded


def tiny(classes: int = 10, dropout: float = 0.2) -> nn.Module:
    """Conv-norm-ReLU, a residual bottleneck with a linear end, pooling, classifier."""

    class Bottleneck(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(
                nn.Conv2d(8, 16, 1, bias=False),
                nn.BatchNorm2d(16),
                nn.ReLU(),
                nn.Conv2d(16, 16, 3, padding=1, groups=16, bias=False),
                nn.BatchNorm2d(16),
                nn.ReLU(),
                nn.Conv2d(16, 8, 1, bias=False),
                nn.BatchNorm2d(8),
            )

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + self.body(x)

    with seeded("tiny"):
        return nn.Sequential(
            OrderedDict(
                stem=nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False),
                norm=nn.BatchNorm2d(8),
                act=nn.ReLU(),
                block=Bottleneck(),
                last=nn.Conv2d(8, 12, 3, padding=1),
                last_act=nn.ReLU(),
                pool=nn.AdaptiveAvgPool2d(1),
                flat=nn.Flatten(),
                drop=nn.Dropout(dropout),
                head=nn.Linear(12, classes),
            )
        )


def small_digits() -> Data:
    """Digits in their own size, 8×8."""
    return load_data("digits", input_size=(3, 8, 8))
