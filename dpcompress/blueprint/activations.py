"""The names of activations, such as "relu6", "leaky_relu(0.1)" and "gelu(tanh)"."""

from __future__ import annotations

from collections import Counter

from dpcompress.blueprint.data import Blueprint

# Their parameters are learnt, one for each channel: such a one cannot be added elsewhere.
_LEARNT = frozenset({"prelu"})


def split_activation(act: str) -> tuple[str, tuple[float | str, ...]]:
    """The function's name and its parameters, numbers where they are numbers.

    >>> split_activation("hardtanh(-2,2)")
    ('hardtanh', (-2.0, 2.0))
    >>> split_activation("gelu(tanh)")
    ('gelu', ('tanh',))
    """
    name, _, rest = act.partition("(")
    texts = rest.rstrip(")").split(",") if rest else []
    return name, tuple(_number(text) for text in texts)


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def own_activation(blueprint: Blueprint) -> str:
    """The activation that a plan adds at positions without one: the one that most layers
    have, else the network's most common one, else "relu"."""
    ops = blueprint.ops
    after_layers = [layer.act for layer in blueprint.layers if layer.act is not None]
    anywhere = [index for index, op in enumerate(ops) if op.kind == "act"]
    names = Counter(ops[index].act or "" for index in after_layers or anywhere)
    usual = (name for name, _ in names.most_common() if name not in _LEARNT)
    return next(usual, "relu")
