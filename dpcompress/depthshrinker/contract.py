"""Contraction of an expanded network to the original one, with new weights."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor, fx, nn

from dpcompress.blueprint import MergedSpan, Span, examine
from dpcompress.depthshrinker.expand import Expansion
from dpcompress.errors import VerificationFailed
from dpcompress.graph import Certificate, merge, span_algebra
from dpcompress.graph.certificate import FLOAT64_LIMIT


@dataclass(frozen=True)
class Contracted:
    """The outcome of `contract`.

    model: the original's own class and layers, with the merged weights.
    difference: largest |Δ| between its output and the linear expanded network's, in
        float64, relative to the largest output.
    certificate: of the merge of the expanded network.
    """

    model: nn.Module
    difference: float
    certificate: Certificate


def contract(
    model: nn.Module, expansion: Expansion, linear: fx.GraphModule, images: Tensor
) -> Contracted:
    """Make a copy of `model` that computes what `linear` computes.

    Each block of three convolutions becomes the original conv; what it adds as a bias
    goes to the conv's own, or else to the running mean of the norm behind it.

    Args:
        linear: `linearize(expansion.network, expansion.plan)`, trained, its activations
            gone.
        images: (N, C, H, W) to compare the two networks on.

    Raises:
        IllegalMerge: activations are still decaying.
        VerificationFailed: the two differ by more than rounding.
    """
    _, certificate = merge(linear, images)
    exact = copy.deepcopy(linear).cpu().double().eval()
    state = exact.state_dict()
    for number, layer in enumerate(expansion.blueprint.layers, 1):
        name = expansion.blueprint.ops[layer.conv].name.removesuffix(".project")
        if name in expansion.convs:
            _contract(state, exact, expansion, name, Span(number - 3, number))
    result = copy.deepcopy(model).cpu().double().eval()
    wanted = result.state_dict().keys()
    result.load_state_dict({k: v for k, v in state.items() if k in wanted})
    with torch.no_grad():
        expected, actual = (net(images.cpu().double()) for net in (exact, result))
    scale = float(expected.abs().max().clamp_min(1e-30))
    difference = float((actual - expected).abs().max()) / scale
    if math.isnan(difference) or difference > FLOAT64_LIMIT:
        raise VerificationFailed(
            f"The contracted network is not the expanded one: its output differs by "
            f"{difference:.1e} of the largest value ({FLOAT64_LIMIT:g} allowed).",
            "Nothing was written; if the weights are finite, this is a bug: report it.",
        )
    dtype = next(model.parameters()).dtype
    return Contracted(result.to(dtype), difference, certificate)


def _contract(
    state: dict[str, Tensor],
    linear: fx.GraphModule,
    expansion: Expansion,
    name: str,
    span: Span,
) -> None:
    """Write the block `name` to `state` as one convolution."""
    blueprint = expansion.blueprint
    merged = examine(blueprint, span)
    assert isinstance(merged, MergedSpan)
    project = blueprint.layers[span.stop - 1].conv
    block = tuple(index for index in merged.region if index <= project)
    with torch.no_grad():
        value = span_algebra(
            linear, blueprint, replace(merged, region=block, exit=project)
        )
    state[f"{name}.weight"] = value.weight
    if linear.get_submodule(f"{name}.project").bias is not None:
        state[f"{name}.bias"] = value.bias
    else:
        (norm,) = (blueprint.ops[user].name for user in blueprint.consumers[project])
        state[f"{norm}.running_mean"] = state[f"{norm}.running_mean"] - value.bias
