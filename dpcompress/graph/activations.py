"""The names of activations in a Blueprint and the modules that compute them."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from dpcompress.blueprint import Blueprint, own_activation, split_activation

_PLAIN: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "silu": nn.SiLU,
    "hardswish": nn.Hardswish,
    "hardsigmoid": nn.Hardsigmoid,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "mish": nn.Mish,
    "selu": nn.SELU,
    "softplus": nn.Softplus,
}
_FUNCTIONS: dict[Any, str] = {
    **{getattr(F, name): name for name in _PLAIN},
    torch.relu: "relu",
    torch.relu_: "relu",
    F.relu_: "relu",
    torch.sigmoid: "sigmoid",
    torch.tanh: "tanh",
    F.gelu: "gelu",
    F.leaky_relu: "leaky_relu",
    F.elu: "elu",
    F.hardtanh: "hardtanh",
}
_METHODS = {"relu": "relu", "relu_": "relu", "sigmoid": "sigmoid", "tanh": "tanh"}
_PARAMETRIC: dict[str, Callable[..., nn.Module]] = {
    "gelu": lambda approximate="none": nn.GELU(approximate),
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "hardtanh": nn.Hardtanh,
}
ACTIVATION_TYPES = (
    *_PLAIN.values(),
    nn.GELU,
    nn.LeakyReLU,
    nn.ELU,
    nn.Hardtanh,
    nn.PReLU,
)
ADDITIONS = {operator.add, operator.iadd, torch.add}
ADD_METHODS = {"add", "add_"}


def activation_name(module: nn.Module) -> str | None:
    """Name an activation as a Blueprint does: "relu6", "leaky_relu(0.1)". Return None if
    `module` is not known to be one that works on each value alone."""
    kind = type(module)
    for name, known in _PLAIN.items():
        if kind is known:
            return name
    if kind is nn.GELU:
        return "gelu" if module.approximate == "none" else "gelu(tanh)"
    if kind is nn.LeakyReLU:
        return f"leaky_relu({module.negative_slope:g})"
    if kind is nn.ELU:
        return f"elu({module.alpha:g})"
    if kind is nn.Hardtanh:
        low, high = float(module.min_val), float(module.max_val)  # type: ignore[arg-type]
        return "relu6" if (low, high) == (0.0, 6.0) else f"hardtanh({low:g},{high:g})"
    if kind is nn.PReLU:
        return "prelu"
    return None


def activation_of_call(
    target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> nn.Module | None:
    """Make the module that does what a traced function or method call does. Return None
    if the call is not a known activation of its first argument, followed by numbers."""
    name = _METHODS.get(target) if isinstance(target, str) else _FUNCTIONS.get(target)
    options = {k: v for k, v in kwargs.items() if k not in ("inplace", "input")}
    numbers = [a for a in args[1:] if not isinstance(a, bool)]
    if name is None or not all(
        isinstance(v, int | float | str) for v in (*numbers, *options.values())
    ):
        return None
    if name in _PLAIN:
        return None if numbers or options else _PLAIN[name]()
    return _PARAMETRIC[name](*numbers, **options)


def free_activation(blueprint: Blueprint) -> nn.Module:
    """Make the activation that a plan adds at positions without one."""
    name, parameters = split_activation(own_activation(blueprint))
    return _PLAIN[name]() if name in _PLAIN else _PARAMETRIC[name](*parameters)
