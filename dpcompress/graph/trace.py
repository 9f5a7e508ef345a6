"""Describing a torch module by a Blueprint."""

from __future__ import annotations

from torch import nn

from dpcompress.blueprint import Blueprint, Limits
from dpcompress.graph.capture import capture


def trace(
    model: nn.Module, input_shape: tuple[int, int, int], limits: Limits | None = None
) -> Blueprint:
    """Make the Blueprint of `model` for inputs of `input_shape` = (C, H, W).

    Raises:
        UntraceableModel: the model cannot be captured as a graph; says which module.
        BadInput: the model does not accept an input of this shape.
    """
    return capture(model, input_shape, limits).blueprint
