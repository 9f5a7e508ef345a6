"""Adding batch norms to a merged network to train it, and folding them afterwards."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


class NormedConv(nn.Sequential):
    """The pair of a convolution and the batch norm that `with_norms` put after it."""


def with_norms(network: fx.GraphModule, images: Tensor) -> None:
    """Put a batch norm after every convolution of a merged network, in place.

    Each norm starts as the identity: its statistics are those of its input on `images`,
    and its weight and bias undo them. So the network's function stays the same, and
    training is as stable as the original's.

    images: (N, C, H, W), as the network takes them.
    """
    stats: dict[str, list[Tensor]] = {}

    def record(path: str, value: Tensor) -> None:
        value = value.double()
        sums = torch.stack([value.sum((0, 2, 3)), value.square().sum((0, 2, 3))])
        seen = stats.setdefault(path, [torch.zeros_like(sums), sums.new_zeros(())])
        seen[0] += sums
        seen[1] += value.numel() // value.shape[1]

    convs = {p: m for p, m in network.named_modules() if isinstance(m, nn.Conv2d)}
    hooks = [
        conv.register_forward_hook(lambda _, __, out, path=path: record(path, out))
        for path, conv in convs.items()
    ]
    with torch.no_grad():
        for chunk in images.split(64):
            network(chunk)
    for hook in hooks:
        hook.remove()
    for path, conv in convs.items():
        sums, count = stats[path]
        mean, square = sums / count
        norm: Any = nn.BatchNorm2d(conv.out_channels).eval()
        with torch.no_grad():
            norm.running_mean.copy_(mean)
            norm.running_var.copy_(square - mean.square())
            norm.bias.copy_(mean)
            norm.weight.copy_((norm.running_var + norm.eps).sqrt())
        network.set_submodule(path, NormedConv(conv, norm))


def without_norms(network: fx.GraphModule) -> None:
    """Fold the norms of `with_norms` into their convolutions, in place."""
    for path, module in list(network.named_modules()):
        if isinstance(module, NormedConv):
            conv, norm = module.eval()
            network.set_submodule(path, fuse_conv_bn_eval(conv, norm))  # type: ignore
