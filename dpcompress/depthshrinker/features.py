"""The distance of a network's features, at chosen positions, from the original's."""

from __future__ import annotations

import copy
from collections.abc import Iterable

import torch
from torch import Tensor, fx, nn

from dpcompress.blueprint import Blueprint
from dpcompress.graph.edit import free_name
from dpcompress.graph.nodes import value_nodes


class Tap(nn.Module):
    """The identity, which keeps the tensor that passed last."""

    def __init__(self) -> None:
        super().__init__()
        self.value: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        self.value = x
        return x


def tapped(
    network: fx.GraphModule, blueprint: Blueprint, positions: Iterable[int]
) -> tuple[fx.GraphModule, list[Tap]]:
    """Copy `network` with a tap at each position, behind added activations.

    The copy shares all modules with `network`, so that training one trains both.

    Returns:
        The copy and its taps, in the order of `positions`.
    """
    copied = fx.GraphModule(network, copy.deepcopy(network.graph))
    values = value_nodes(copied, blueprint)
    taps = []
    for position in positions:
        tap, node = Tap(), values[blueprint.layers[position - 1].out]
        name = free_name(copied, f"tap_{position}")
        copied.add_submodule(name, tap)
        with copied.graph.inserting_after(node):
            new = copied.graph.call_module(name)
        node.replace_all_uses_with(new)
        new.args = (node,)
        taps.append(tap)
    copied.graph.lint()
    copied.recompile()
    return copied.train(network.training), taps


def feature_loss(ours: Iterable[Tap], theirs: Iterable[Tap]) -> Tensor:
    """Compute the mean over the taps of ‖ours − theirs‖² / ‖theirs‖², a scalar."""
    parts = []
    for student, teacher in zip(ours, theirs, strict=True):
        assert student.value is not None and teacher.value is not None
        target = teacher.value.detach()
        distance = (student.value - target).square().mean()
        parts.append(distance / target.square().mean().clamp_min(1e-12))
    return torch.stack(parts).mean()
