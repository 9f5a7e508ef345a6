"""Merging a linearized network: every span of its plan becomes one convolution."""

from __future__ import annotations

import copy
from typing import Any

from torch import Tensor, fx, nn
from torch.nn import functional as F

from dpcompress import algebra
from dpcompress.blueprint import Blueprint, MergedSpan, check_plan
from dpcompress.graph.certificate import Certificate, certify
from dpcompress.graph.decay import require_gone
from dpcompress.graph.nodes import (
    forget_planned,
    op_nodes,
    planned_of,
    take_over,
    value_nodes,
)


def merge(
    network: nn.Module, images: Tensor | None = None
) -> tuple[fx.GraphModule, Certificate]:
    """Merge a linearized network, and prove that the two agree.

    Weights are composed in float64 and cast to the network's dtype at the end; the
    result is in eval mode, on the CPU. `network` is not changed.

    Args:
        network: what `linearize` returned, trained or not.
        images: (N, C, H, W) inputs for the check, besides random ones.

    Raises:
        IllegalMerge: `network` is not a linearized network, or a removed activation is
            still decaying.
        VerificationFailed: the two differ by more than rounding.
    """
    linearized = checked(network)
    dtype = next(linearized.parameters()).dtype
    merged = merge_unchecked(linearized)
    certificate = certify(linearized, merged, images)
    certificate.require()
    return merged.to(dtype), certificate


def checked(network: nn.Module) -> fx.GraphModule:
    """Return `network`, unwrapped if it is data-parallel or compiled.

    Raises:
        IllegalMerge: it is not linearized, or a removed activation is still decaying.
    """
    for wrapper in ("module", "_orig_mod"):
        inner = getattr(network, wrapper, None)
        if isinstance(inner, nn.Module) and not isinstance(network, fx.GraphModule):
            network = inner
    planned_of(network)
    require_gone(network)
    assert isinstance(network, fx.GraphModule)
    return network


def merge_unchecked(linearized: fx.GraphModule) -> fx.GraphModule:
    """Merge a linearized network as `merge` does, without the check, in float64."""
    network = copy.deepcopy(linearized).cpu().double().eval()
    blueprint, plan = planned_of(network)
    spans = check_plan(blueprint, plan)
    convs = [merged_conv(network, blueprint, span) for span in spans]
    exits, entries = op_nodes(network), value_nodes(network, blueprint)
    for span, conv in zip(spans, convs, strict=True):
        old = exits[span.exit]
        new = _replace(network, blueprint, span, conv, entries[span.entry], old)
        if entries[span.exit] is old:
            entries[span.exit] = new
    network.graph.eliminate_dead_code()
    network.graph.lint()
    network.recompile()
    network.delete_all_unused_submodules()
    forget_planned(network)
    return network


def merged_conv(
    network: fx.GraphModule, blueprint: Blueprint, span: MergedSpan
) -> nn.Conv2d:
    """Make the convolution that `span` of a linearized network becomes. It pads by itself
    where both ends are padded alike, else not at all."""
    value, spec = span_algebra(network, blueprint, span), span.conv
    (top, bottom), (left, right) = spec.padding
    symmetric = top == bottom and left == right
    conv = nn.Conv2d(
        spec.in_channels,
        spec.out_channels,
        spec.kernel,
        spec.stride,
        (top, left) if symmetric else 0,
        spec.dilation,
        spec.groups,
    )
    conv.weight = nn.Parameter(value.weight.detach())
    conv.bias = nn.Parameter(value.bias.detach())
    return conv.eval()


def span_algebra(
    network: fx.GraphModule, blueprint: Blueprint, span: MergedSpan
) -> algebra.AffineConv:
    """Compose the affine convolution that `span` of a linearized network computes, in the
    network's own precision; differentiable in its parameters."""
    channels = blueprint.ops[span.entry].shape[0]
    like = next(network.parameters()).new_zeros(())
    values = {span.entry: algebra.dirac(channels, like)}
    for index in span.region:
        op = blueprint.ops[index]
        sources = [values[i] for i in op.inputs]
        value = sources[0]
        if op.kind == "conv" and op.conv is not None:
            conv = network.get_submodule(op.name)
            assert isinstance(conv, nn.Conv2d)
            value = algebra.compose(value, conv.weight, conv.bias, op.conv)
        elif op.kind == "avgpool" and op.conv is not None:
            area = op.conv.kernel[0] * op.conv.kernel[1]
            mean = like.new_full((op.conv.out_channels, 1, *op.conv.kernel), 1 / area)
            value = algebra.compose(value, mean, None, op.conv)
        elif op.kind == "norm":
            value = algebra.scale(value, *_norm(network.get_submodule(op.name)))
        elif op.kind == "pad" and op.padding is not None:
            value = algebra.pad(value, op.padding)
        elif op.kind == "add":
            for other in sources[1:]:
                value = algebra.add(value, other)
        values[index] = value
    return values[span.exit]


def _norm(norm: Any) -> tuple[Tensor, Tensor]:
    return algebra.norm_factors(
        norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
    )


def _replace(
    network: fx.GraphModule,
    blueprint: Blueprint,
    span: MergedSpan,
    conv: nn.Conv2d,
    entry: fx.Node,
    exit: fx.Node,
) -> fx.Node:
    path = blueprint.ops[blueprint.layers[span.span.stop - 1].conv].name
    network.add_submodule(path, conv)
    (top, bottom), (left, right) = span.conv.padding
    with network.graph.inserting_after(exit):
        new = network.graph.call_module(path, (entry,))
    if conv.padding == (0, 0) and (top, bottom, left, right) != (0, 0, 0, 0):
        with network.graph.inserting_before(new):
            padded = network.graph.call_function(
                F.pad, (entry, (left, right, top, bottom))
            )
        new.args = (padded,)
    take_over(new, exit)
    exit.replace_all_uses_with(new)
    return new
