"""Expansion of dense convolutions to inverted-residual blocks that can be merged back.

Fu et al. 2022 (DepthShrinker+): a k×k convolution becomes 1×1 expand, k×k depthwise, 1×1
project, with norms and activations between. The depthwise convolution has the original's
kernel, stride, padding and dilation, so that without the activations the three merge into
a convolution of the original's shape.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from dpcompress.blueprint import Blueprint, Op, Plan
from dpcompress.depthshrinker.plans import kept_activations
from dpcompress.errors import UsageError
from dpcompress.graph import trace
from dpcompress.graph.activations import free_activation
from dpcompress.graph.capture import capture


class Expanded(nn.Sequential):
    """The block that stands for one convolution."""

    def __init__(self, conv: nn.Conv2d, width: int, activation: nn.Module) -> None:
        super().__init__()
        self.expand = nn.Conv2d(conv.in_channels, width, 1, bias=False)
        self.expand_norm = nn.BatchNorm2d(width)
        self.expand_act = copy.deepcopy(activation)
        self.depthwise = nn.Conv2d(
            width,
            width,
            conv.kernel_size,  # type: ignore[arg-type]
            conv.stride,  # type: ignore[arg-type]
            conv.padding,  # type: ignore[arg-type]
            conv.dilation,  # type: ignore[arg-type]
            groups=width,
            bias=False,
        )
        self.depthwise_norm = nn.BatchNorm2d(width)
        self.depthwise_act = copy.deepcopy(activation)
        self.project = nn.Conv2d(width, conv.out_channels, 1, bias=conv.bias is not None)


@dataclass(frozen=True)
class Expansion:
    """The expanded network, and the plan that merges it back.

    network: trainable, with `Expanded` blocks in the places of `convs`; parameters
        outside of them keep their names.
    blueprint: of `network`.
    plan: removes the blocks' activations and merges each block into one convolution.
    convs: names of the convolutions that were expanded.
    weight_error: for each of them, the relative error of its factorised kernel in the
        Frobenius norm; 0 if the width suffices.
    """

    network: fx.GraphModule
    blueprint: Blueprint
    plan: Plan
    convs: tuple[str, ...]
    weight_error: dict[str, float]


def expand(
    model: nn.Module,
    images: Tensor,
    *,
    convs: Sequence[str] | None = None,
    ratio: float | None = None,
) -> Expansion:
    """Expand convolutions of any traced network.

    Without its activations the result is `model` itself, up to `weight_error`: per input
    channel the kernel (C_out × taps) is split by its singular value decomposition, each
    singular pair becomes one middle channel (the best ones, if there are more than the
    width), and norms start as the identity on `images`. So with its activations faded out
    (`graph.Decay` at 1) it starts as the same function.

    Args:
        images: (N, C, H, W) training images, prepared; they set the norms' statistics.
        convs: names of the convolutions; None takes all that can be expanded.
        ratio: middle channels per input channel; None takes as many as make it exact,
            which is at most the number of taps.

    Raises:
        UsageError: a conv that cannot be expanded, with the reason, or none can.
    """
    shape = (images.shape[1], images.shape[2], images.shape[3])
    captured = capture(model, shape)
    network, blueprint = captured.network, captured.blueprint
    chosen = _chosen(blueprint, convs)
    activation = free_activation(blueprint)
    errors = {}
    for name in chosen:
        conv = network.get_submodule(name)
        assert isinstance(conv, nn.Conv2d)
        block, errors[name] = _factorised(conv, ratio, activation)
        network.set_submodule(name, block)
    network.recompile()
    _settle_norms(network, chosen, images)
    expanded = trace(network, shape)
    return Expansion(
        network=network.train(model.training),
        blueprint=expanded,
        plan=_merging_plan(expanded, chosen),
        convs=chosen,
        weight_error=errors,
    )


def refusals(blueprint: Blueprint) -> dict[str, str]:
    """Say of each convolution, by name, why it cannot be expanded; "" if it can be."""
    layers = {layer.conv for layer in blueprint.layers}
    return {
        op.name: _refusal(blueprint, index, op, index in layers)
        for index, op in enumerate(blueprint.ops)
        if op.kind == "conv"
    }


def _refusal(blueprint: Blueprint, index: int, op: Op, is_layer: bool) -> str:
    assert op.conv is not None
    if op.conv.groups > 1:
        return f"it has {op.conv.groups} groups, only dense ones expand"
    if op.conv.kernel == (1, 1):
        return "a 1x1 kernel has no taps for a depthwise convolution"
    if any(front != back for front, back in op.conv.padding):
        return "its padding is not the same on both sides"
    if not is_layer:
        return "it lies on a side branch that merges with what it goes around"
    after = [blueprint.ops[user].kind for user in blueprint.consumers[index]]
    if not op.conv.bias and after != ["norm"]:
        return "it has no bias, nor a norm after it that could hold the block's shift"
    return ""


def _chosen(blueprint: Blueprint, asked: Sequence[str] | None) -> tuple[str, ...]:
    """List the convolutions to expand, each once; refuse those that cannot be."""
    known = refusals(blueprint)
    if asked is None:
        chosen = tuple(name for name, why in known.items() if not why)
        if not chosen:
            name, why = next(iter(known.items()))
            raise UsageError(
                f"No convolution can be expanded; the first one, {name}: {why}.",
                "Expand-then-shrink is for networks with dense convolutions.",
            )
        return chosen
    opaque = {op.name: op.why for op in blueprint.ops if op.kind == "opaque"}
    for name in asked:
        why = known.get(name, opaque.get(name, "there is no convolution of this name"))
        if why:
            raise UsageError(
                f"{name} cannot be expanded: {why}.",
                f"Those that can: {', '.join(n for n, w in known.items() if not w)}.",
            )
    return tuple(dict.fromkeys(asked))


def _factorised(
    conv: nn.Conv2d, ratio: float | None, activation: nn.Module
) -> tuple[Expanded, float]:
    """Make the block that is `conv` but for its activations.

    Returns:
        The block, and the relative error of its kernel.
    """
    weight = conv.weight.detach().double()
    outs, ins, height, width = weight.shape
    kernels = weight.permute(1, 0, 2, 3).reshape(ins, outs, height * width)
    left, values, right = torch.linalg.svd(kernels, full_matrices=False)
    flat = values.flatten()
    middle = flat.numel() if ratio is None else max(round(ratio * ins), 1)
    best = torch.argsort(flat, descending=True, stable=True)[:middle]
    error = 1 - flat[best].square().sum() / flat.square().sum().clamp_min(1e-300)
    channel, rank = best // values.shape[1], best % values.shape[1]
    taps = right[channel, rank]
    # A pair's sign is free: positive sums of taps give values that a ReLU lets pass.
    sign = torch.where(taps.sum(1) < 0, -1.0, 1.0)[:, None]
    block = Expanded(conv, len(best), activation).to(conv.weight)
    with torch.no_grad():
        block.expand.weight.zero_()
        block.expand.weight[torch.arange(len(best)), channel] = 1.0
        block.depthwise.weight.copy_((sign * taps).reshape(-1, 1, height, width))
        scaled = left[channel, :, rank] * values[channel, rank][:, None] * sign
        block.project.weight.copy_(scaled.T[..., None, None])
        if conv.bias is not None and block.project.bias is not None:
            block.project.bias.copy_(conv.bias)
    return block, float(error.clamp_min(0).sqrt())


def _settle_norms(network: nn.Module, convs: Sequence[str], images: Tensor) -> None:
    """Set the blocks' norms to the statistics of `images`; in eval mode they are the
    identity."""

    def settle(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(norm, nn.BatchNorm2d)
        assert norm.running_mean is not None and norm.running_var is not None
        var, mean = torch.var_mean(inputs[0], (0, 2, 3), correction=0)
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(var)
        norm.bias.copy_(mean)
        norm.weight.copy_((var + norm.eps).sqrt())

    def is_new(name: str) -> bool:
        return any(name in (f"{c}.expand_norm", f"{c}.depthwise_norm") for c in convs)

    hooks = [
        norm.register_forward_pre_hook(settle)
        for name, norm in network.named_modules()
        if is_new(name)
    ]
    network.eval()
    with torch.no_grad():
        network(images.to(next(network.parameters())))
    for hook in hooks:
        hook.remove()


def _merging_plan(blueprint: Blueprint, convs: Sequence[str]) -> Plan:
    """Make the plan that merges the block of every expanded convolution."""
    inside: set[int] = set()
    position = {
        blueprint.ops[layer.conv].name: number
        for number, layer in enumerate(blueprint.layers, 1)
    }
    for name in convs:
        inside |= {position[f"{name}.expand"], position[f"{name}.depthwise"]}
    edges = tuple(p for p in range(blueprint.depth + 1) if p not in inside)
    kept = kept_activations(blueprint, (tuple(inside),), ())
    return Plan.build(edges, kept, blueprint=blueprint.digest, input=blueprint.input)
