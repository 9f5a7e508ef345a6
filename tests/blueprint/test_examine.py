"""Spans of a hand-made chain of two 3x3 convolutions."""

import gc
from importlib import import_module

from dpcompress.blueprint import (
    Blueprint,
    ConvSpec,
    Limits,
    Op,
    Span,
    examine,
    find_chains,
)


def two_convs() -> Blueprint:
    conv = ConvSpec(in_channels=8, out_channels=8, kernel=(3, 3))
    ops = (
        Op(name="image", kind="input", shape=(8, 9, 9)),
        Op(name="first", kind="conv", inputs=(0,), shape=(8, 7, 7), conv=conv),
        Op(name="relu", kind="act", inputs=(1,), shape=(8, 7, 7), act="relu"),
        Op(name="second", kind="conv", inputs=(2,), shape=(8, 5, 5), conv=conv),
    )
    layers, chains = find_chains(ops)
    return Blueprint(input=(8, 9, 9), output=3, ops=ops, layers=layers, chains=chains)


def test_a_copy_with_other_limits_has_verdicts_of_its_own() -> None:
    network = two_convs()
    assert examine(network, Span(0, 2)).is_candidate
    assert examine(network, Span(0, 2)) is examine(network, Span(0, 2))
    strict = network.model_copy(update={"limits": Limits(max_weight_mb=0.001)})
    assert examine(strict, Span(0, 2)).too_large == "0 MB of weights, more than 0.001"
    assert examine(network, Span(0, 2)).is_candidate


def test_verdicts_live_as_long_as_their_blueprint() -> None:
    known = import_module("dpcompress.blueprint.examine")._verdicts
    network = two_convs()
    examine(network, Span(0, 2))
    key = id(network)
    assert key in known
    del network
    gc.collect()
    assert key not in known
