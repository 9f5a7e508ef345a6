"""Activations by name: what a blueprint calls them is what can be timed and added."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dpcompress.blueprint import own_activation
from dpcompress.graph import trace
from dpcompress.graph.activations import (
    ACTIVATION_TYPES,
    activation_name,
    free_activation,
)
from dpcompress.onnxio.write import ACTIVATIONS

ALL = [kind() for kind in ACTIVATION_TYPES] + [
    nn.LeakyReLU(0.1),
    nn.ELU(0.5),
    nn.Hardtanh(-2, 3),
    nn.GELU("tanh"),
]


def network(act: nn.Module) -> nn.Module:
    convs = [nn.Conv2d(3, 4, 3, padding=1), act, nn.Conv2d(4, 4, 3, padding=1)]
    return nn.Sequential(*convs).eval()


@pytest.mark.parametrize("act", ALL, ids=repr)
def test_every_known_activation_can_be_timed(act: nn.Module):
    name = activation_name(act)
    assert name is not None and name.partition("(")[0] in ACTIVATIONS


@pytest.mark.parametrize("act", ALL, ids=repr)
def test_what_a_plan_adds_is_what_the_table_times(act: nn.Module):
    blueprint = trace(network(act), (3, 8, 8))
    added = free_activation(blueprint)
    assert activation_name(added) == own_activation(blueprint)
    if not isinstance(act, nn.PReLU):  # its parameters are learnt: ReLU is added
        x = torch.linspace(-4, 4, 50)
        torch.testing.assert_close(added(x), act(x))
