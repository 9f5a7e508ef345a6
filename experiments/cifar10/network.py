"""MobileNetV2 for images of 32×32: stem stride 1."""

from __future__ import annotations

from torch import nn
from torchvision.models import mobilenet_v2 as torchvision_mobilenet_v2


def mobilenet_v2(width: float = 1.0) -> nn.Module:
    """torchvision's MobileNetV2 for ten classes, whose stem keeps the resolution."""
    network = torchvision_mobilenet_v2(num_classes=10, width_mult=width)
    network.features[0][0].stride = (1, 1)
    return network
