"""The usual alternative: the same network with fewer channels everywhere."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dpcompress.blueprint import Blueprint, Op
from experiments.cifar10.network import mobilenet_v2


def narrowed(original: nn.Module, blueprint: Blueprint, width: float) -> nn.Module:
    """MobileNetV2 of a smaller `width`, made of the largest channels of `original`.

    A filter's size is the sum of its absolute weights (Li et al. 2017). Channels that
    residual adds tie together are kept or left together, by the sum over the convs that
    write them, each relative to that conv's mean.
    """
    network = mobilenet_v2(width)
    wide, narrow = (dict(n.named_modules()) for n in (original, network))
    spaces = channel_spaces(blueprint.ops)
    kept: dict[int, Tensor] = {}
    for space in dict.fromkeys(spaces):
        writers = [
            op for op, s in zip(blueprint.ops, spaces, strict=True)
            if s == space and op.kind == "conv" and not _depthwise(op)
        ]  # fmt: skip
        if not writers:
            kept[space] = torch.arange(blueprint.ops[space].shape[0])
            continue
        sizes = sum(_sizes(wide[op.name].weight) for op in writers)  # type: ignore[arg-type]
        assert isinstance(sizes, Tensor)
        count = narrow[writers[0].name].out_channels
        kept[space] = sizes.topk(int(count)).indices.sort().values  # type: ignore[arg-type]
    state = original.state_dict()
    for op, space in zip(blueprint.ops, spaces, strict=True):
        if op.kind not in ("conv", "norm"):
            continue
        for name, value in wide[op.name].state_dict().items():
            cut = value[kept[space]] if value.dim() else value
            if op.kind == "conv" and not _depthwise(op):
                cut = cut[:, kept[spaces[op.inputs[0]]]]
            state[f"{op.name}.{name}"] = cut
    network.load_state_dict(state)
    return network


def channel_spaces(ops: tuple[Op, ...]) -> list[int]:
    """For each op, a number that it shares with all ops whose channels correspond."""
    space = list(range(len(ops)))
    for index, op in enumerate(ops):
        if op.kind == "opaque" or not op.inputs:
            continue
        if op.kind != "conv" or _depthwise(op):
            joined = {space[i] for i in op.inputs} | {index}
            first = min(joined)
            space = [first if s in joined else s for s in space]
    return space


def _depthwise(op: Op) -> bool:
    return op.conv is not None and op.conv.groups == op.conv.in_channels > 1


def _sizes(weight: Tensor) -> Tensor:
    sizes = weight.detach().abs().sum((1, 2, 3))
    return sizes / sizes.mean()
