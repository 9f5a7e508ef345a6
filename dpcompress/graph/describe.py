"""What each node of a normal-form graph is: the ops of a Blueprint."""

from __future__ import annotations

import operator
from collections import Counter
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional as F
from torchvision.ops import FrozenBatchNorm2d

from dpcompress.blueprint import ConvSpec, Op, Sides
from dpcompress.graph.activations import activation_name
from dpcompress.graph.normal_form import conv_padding, does_nothing, does_what_it_says

_IDENTITIES = (nn.Identity, nn.Dropout, nn.Dropout2d, nn.AlphaDropout)
IDENTITY_NAMES = {"StochasticDepth", "DropPath", "DropBlock2d"}
_IDENTITY_CALLS = {F.dropout, F.dropout2d, "contiguous", torch.Tensor.contiguous}
_GLOBAL_POOLS = (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)
_GLOBAL_POOL_CALLS = {
    F.adaptive_avg_pool2d,
    F.adaptive_max_pool2d,
    torch.mean,
    "mean",
    "amax",
}
_ATTENTION_CALLS = {
    F.scaled_dot_product_attention,
    operator.matmul,
    torch.matmul,
    torch.bmm,
    "matmul",
    "bmm",
}
_WHY = {
    **dict.fromkeys(
        _GLOBAL_POOL_CALLS, "global pooling (or another reduction) is not a convolution"
    ),
    **dict.fromkeys(_ATTENTION_CALLS, "attention is not linear"),
    nn.MaxPool2d: "max pooling is not linear",
    nn.AdaptiveAvgPool2d: "global pooling is not a convolution",
    nn.AdaptiveMaxPool2d: "global pooling is not a convolution",
    nn.Linear: "a fully connected layer",
    nn.LayerNorm: "it normalises with each image's own statistics",
    nn.GroupNorm: "it normalises with each image's own statistics",
    nn.InstanceNorm2d: "it normalises with each image's own statistics",
    nn.ConvTranspose2d: "a transposed convolution",
    nn.MultiheadAttention: "attention is not linear",
    F.max_pool2d: "max pooling is not linear",
    operator.mul: "it multiplies two tensors (squeeze-excite, a gate or a scale)",
    torch.mul: "it multiplies two tensors (squeeze-excite, a gate or a scale)",
    "mul": "it multiplies two tensors (squeeze-excite, a gate or a scale)",
    torch.cat: "concatenation",
    torch.concat: "concatenation",
    torch.split: "a split of channels",
    torch.chunk: "a split of channels",
    "chunk": "a split of channels",
    "split": "a split of channels",
    torch.flatten: "a reshape",
    "flatten": "a reshape",
    "view": "a reshape",
    "reshape": "a reshape",
    "permute": "a reordering of dimensions",
    torch.permute: "a reordering of dimensions",
    torch.transpose: "a reordering of dimensions",
}


class Describer:
    """Turns nodes into ops.

    Args:
        network: a graph in normal form.
        shapes: each node's output shape without the batch.
        leaves: submodules that could not be traced into, with the reason.
    """

    def __init__(
        self,
        network: fx.GraphModule,
        shapes: dict[fx.Node, tuple[int, ...]],
        leaves: dict[str, str],
    ) -> None:
        self.network, self.shapes, self.leaves = network, shapes, leaves
        self.modules = dict(network.named_modules(remove_duplicate=False))
        self.calls = Counter(
            id(self.modules[n.target])
            for n in network.graph.nodes
            if n.op == "call_module"
        )
        called = {n.target for n in network.graph.nodes if n.op == "call_module"}
        self.owners = Counter(
            id(p) for path in called for p in self.modules[path].parameters(recurse=False)
        )
        self.owners.update(
            id(operator.attrgetter(n.target)(network))
            for n in network.graph.nodes
            if n.op == "get_attr"
        )
        self.pooled: set[fx.Node] = set()

    def ops(self) -> tuple[list[Op], dict[fx.Node, int]]:
        """The ops, and each computing node's index among them."""
        ops: list[Op] = []
        index: dict[fx.Node, int] = {}
        for node in self.network.graph.nodes:
            if node.op == "output":
                continue
            name = str(node.target) if node.op == "call_module" else node.name
            inputs = tuple(index[source] for source in node.all_input_nodes)
            fields = self._describe(node)
            if fields["kind"] != "opaque" and any(
                len(self.shapes[n]) != 3 for n in (node, *node.all_input_nodes)
            ):
                fields = _opaque("it does not work on images")
            if self._is_pooled(node):
                self.pooled.add(node)
            index[node] = len(ops)
            ops.append(Op(name=name, inputs=inputs, shape=self.shapes[node], **fields))
        return ops, index

    def _is_pooled(self, node: fx.Node) -> bool:
        """Whether all that this node sees has been pooled over the whole image."""
        called = (
            isinstance(self.modules[node.target], _GLOBAL_POOLS)
            if node.op == "call_module"
            else node.target in _GLOBAL_POOL_CALLS
        )
        if called and self.shapes[node][1:] in ((), (1, 1)):
            return True
        sources = node.all_input_nodes
        return bool(sources) and all(s in self.pooled for s in sources)

    def _describe(self, node: fx.Node) -> dict[str, Any]:
        if node.op == "placeholder":
            return {"kind": "input", "why": "the network's input"}
        if node.op == "call_module":
            return self._describe_module(node, self.modules[node.target])
        if node.target is operator.add:
            sources = node.all_input_nodes
            if len(sources) == 2 and len({self.shapes[s] for s in sources}) == 1:
                return {"kind": "add"}
            return _opaque("it adds something else than two images of one size")
        if node.target is F.pad:
            return self._describe_pad(node)
        if node.target is F.avg_pool2d:
            numbers: Any = node.args[1:]
            options: Any = node.kwargs
            try:
                return self._describe_pool(node, nn.AvgPool2d(*numbers, **options))
            except (TypeError, ValueError):
                return _opaque("average pooling with a computed size")
        if node.target in _IDENTITY_CALLS:
            return {"kind": "identity"}
        return _opaque(_WHY.get(node.target, "not an operation that can be merged"))

    def _describe_module(self, node: fx.Node, module: nn.Module) -> dict[str, Any]:
        path = str(node.target)
        if path in self.leaves:
            return _opaque(self.leaves[path])
        if module._forward_hooks or module._forward_pre_hooks:
            return _opaque("it has forward hooks")
        act = activation_name(module)
        if act is not None:
            return {"kind": "act", "act": act}
        if isinstance(module, _IDENTITIES):
            return {"kind": "identity"}
        if type(module).__name__ in IDENTITY_NAMES:
            if len(node.all_input_nodes) == 1 and does_nothing(module, self.shapes[node]):
                return {"kind": "identity"}
            return _opaque(f"{type(module).__name__} changes what it is given")
        if isinstance(module, nn.AvgPool2d):
            return self._describe_pool(node, module)
        if isinstance(module, nn.ZeroPad2d):
            left, right, top, bottom = module.padding
            return _pad(((top, bottom), (left, right)))
        is_conv = isinstance(module, nn.Conv2d)
        if is_conv or is_fixed_norm(module):
            shared = self._shared(module)
            if shared:
                return _opaque(shared)
            if hasattr(module, "parametrizations"):
                return _opaque("its weights are computed by a parametrization")
            if isinstance(module, nn.Conv2d):
                return self._describe_conv(node, module)
            return {"kind": "norm"}
        if type(module) in (nn.BatchNorm2d, nn.SyncBatchNorm):
            return _opaque("it normalises with each batch's own statistics")
        why = _WHY.get(type(module), f"{type(module).__name__} cannot be merged")
        return _opaque(why)

    def _shared(self, module: nn.Module) -> str:
        if self.calls[id(module)] > 1:
            return f"the module is used {self.calls[id(module)]} times"
        if any(self.owners[id(p)] > 1 for p in module.parameters(recurse=False)):
            return "its parameters are also used elsewhere"
        return ""

    def _describe_conv(self, node: fx.Node, conv: nn.Conv2d) -> dict[str, Any]:
        source = node.all_input_nodes[0]
        if conv.padding_mode != "zeros":
            return _opaque(f"it pads in mode {conv.padding_mode!r}")
        if source in self.pooled:
            return _opaque("it works on a globally pooled vector")
        shape = self.shapes[source]
        if len(shape) != 3:
            return _opaque("it does not work on images")
        padding = conv_padding(conv, (shape[1], shape[2]))
        if type(conv) is not nn.Conv2d and not does_what_it_says(conv, shape, padding):
            return _opaque(f"{type(conv).__name__} is not a plain convolution")
        return {
            "kind": "conv",
            "conv": ConvSpec(
                in_channels=conv.in_channels,
                out_channels=conv.out_channels,
                kernel=_pair(conv.kernel_size),
                stride=_pair(conv.stride),
                padding=padding,
                dilation=_pair(conv.dilation),
                groups=conv.groups,
                bias=conv.bias is not None,
            ),
        }

    def _describe_pool(self, node: fx.Node, pool: nn.AvgPool2d) -> dict[str, Any]:
        source = self.shapes[node.all_input_nodes[0]]
        kernel, padding = _pair(pool.kernel_size), _pair(pool.padding)
        stride = _pair(pool.stride or pool.kernel_size)
        if pool.divisor_override:
            return _opaque("average pooling with another divisor")
        if padding != (0, 0) and not pool.count_include_pad:
            return _opaque("average pooling that leaves its padding out of the count")
        out = self.shapes[node]
        for d in (0, 1):
            reach = (out[1 + d] - 1) * stride[d] + kernel[d]
            if reach > source[1 + d] + 2 * padding[d]:
                return _opaque("average pooling with a partial last window")
        return {
            "kind": "avgpool",
            "conv": ConvSpec(
                in_channels=source[0],
                out_channels=source[0],
                kernel=kernel,
                stride=stride,
                padding=((padding[0],) * 2, (padding[1],) * 2),
                groups=source[0],
                bias=False,
            ),
        }

    def _describe_pad(self, node: fx.Node) -> dict[str, Any]:
        options = dict(zip(("input", "pad", "mode", "value"), node.args, strict=False))
        options |= node.kwargs
        amounts = options.get("pad")
        if options.get("mode", "constant") != "constant" or options.get("value") not in (
            None,
            0,
            0.0,
        ):
            return _opaque("it pads with something else than zeros")
        if (
            not isinstance(amounts, tuple | list)
            or len(amounts) > 4
            or not all(isinstance(a, int) for a in amounts)
        ):
            return _opaque("it pads by a computed amount")
        left, right, top, bottom = (*amounts, 0, 0, 0, 0)[:4]
        return _pad(((top, bottom), (left, right)))


def _pad(sides: Sides) -> dict[str, Any]:
    if min(min(s) for s in sides) < 0:
        return _opaque("it crops")
    return {"kind": "pad", "padding": sides}


def _opaque(why: str) -> dict[str, Any]:
    return {"kind": "opaque", "why": why}


def _pair(value: Any) -> tuple[int, int]:
    first, second = value if isinstance(value, tuple | list) else (value, value)
    return (int(first), int(second))


def is_fixed_norm(module: nn.Module) -> bool:
    """A batch norm whose statistics are constants in eval mode."""
    return (
        type(module) in (nn.BatchNorm2d, nn.SyncBatchNorm, FrozenBatchNorm2d)
        and getattr(module, "running_mean", None) is not None
    )
