"""What a call in a normal-form graph means: one small handler per module or function."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import fx, nn
from torch.nn import functional as F
from torchvision.ops import FrozenBatchNorm2d

from dpcompress.blueprint import ConvSpec, Pair, Sides
from dpcompress.blueprint.data import OpKind, Role
from dpcompress.graph.activations import ACTIVATION_TYPES, activation_name
from dpcompress.graph.conv2d import conv_padding, is_plain

Shape = tuple[int, ...]

# Stochastic depth in several libraries; whether such a module is the identity is tested.
IDENTITY_NAMES = ("StochasticDepth", "DropPath", "DropBlock2d")


@dataclass(frozen=True)
class Call:
    """A node of a normal-form graph and what a handler may know of it.

    module: the module that it calls, None if it calls a function or a method.
    inputs, shape: shapes of its input tensors and of its output, without the batch.
    shared: why the module's weights are not its own; "" if they are.
    pooled: whether its inputs were pooled over the whole image before.
    """

    node: fx.Node
    module: Any
    inputs: tuple[Shape, ...]
    shape: Shape
    shared: str = ""
    pooled: bool = False


class Meaning(NamedTuple):
    """The fields of an Op that depend on what its call computes."""

    kind: OpKind
    conv: ConvSpec | None = None
    padding: Sides | None = None
    act: str | None = None
    why: str = ""
    role: Role = ""
    mixes: ConvSpec | None = None


Handler = Callable[[Call], Meaning]


def meaning(call: Call) -> Meaning:
    """Tell what `call` computes, by its handler."""
    module = call.module
    if module is not None and (module._forward_hooks or module._forward_pre_hooks):
        return Meaning("opaque", why="it has forward hooks")
    return _handler(call)(call)


def pools_all(call: Call) -> bool:
    """Whether `call` pools over the whole image."""
    pools = _handler(call) in (_global_pool, _reduction)
    return pools and call.shape[1:] in ((), (1, 1))


def _handler(call: Call) -> Handler:
    if call.module is None:
        unknown = opaque("not an operation that can be merged")
        return HANDLERS.get(call.node.target, unknown)
    if isinstance(call.module, nn.Conv2d):
        return _conv
    name = type(call.module).__name__
    named = HANDLERS.get(name, opaque(f"{name} cannot be merged"))
    return HANDLERS.get(type(call.module), named)


def is_fixed_norm(module: nn.Module) -> bool:
    """Whether `module` is a batch norm whose statistics are constants in eval mode."""
    is_norm = type(module) in (nn.BatchNorm2d, nn.SyncBatchNorm, FrozenBatchNorm2d)
    return is_norm and getattr(module, "running_mean", None) is not None


def opaque(why: str) -> Handler:
    """The handler of what cannot be merged, for the reason `why`."""
    return lambda call: Meaning("opaque", why=why)


def _activation(call: Call) -> Meaning:
    return Meaning("act", act=activation_name(call.module))


def _identity(call: Call) -> Meaning:
    return Meaning("identity")


def _identity_by_name(call: Call) -> Meaning:
    if len(call.inputs) == 1 and _does_nothing(call.module, call.shape):
        return Meaning("identity")
    name = type(call.module).__name__
    return Meaning("opaque", why=f"{name} changes what it is given")


def _does_nothing(module: nn.Module, shape: Shape) -> bool:
    dtype = next((p.dtype for p in module.parameters()), torch.float32)
    images = torch.randn(1, *shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    with torch.no_grad():
        return torch.equal(module(images), images)


def _add(call: Call) -> Meaning:
    if len(call.inputs) == 2 and len(set(call.inputs)) == 1:
        return Meaning("add")
    why = "it adds something else than two images of one size"
    return Meaning("opaque", why=why)


def _why_not_its_weights(call: Call) -> str:
    """Say why the module's weights cannot be merged into others; "" if they can."""
    if call.shared:
        return call.shared
    if hasattr(call.module, "parametrizations"):
        return "its weights are computed by a parametrization"
    return ""


def _norm(call: Call) -> Meaning:
    if not is_fixed_norm(call.module):
        why = "it normalises with each batch's own statistics"
        return Meaning("opaque", why=why)
    why = _why_not_its_weights(call)
    return Meaning("opaque", why=why) if why else Meaning("norm")


def _conv(call: Call) -> Meaning:
    conv, why = call.module, _why_not_its_weights(call)
    if why:
        return Meaning("opaque", why=why)
    if conv.padding_mode != "zeros":
        return Meaning("opaque", why=f"it pads in mode {conv.padding_mode!r}")
    (shape,) = call.inputs
    if call.pooled:
        why = "it works on a globally pooled vector"
        return Meaning("opaque", why=why, role="mixes", mixes=_spec(conv, _NO_PADDING))
    if len(shape) != 3:
        return Meaning("opaque", why="it does not work on images")
    padding = conv_padding(conv, (shape[1], shape[2]))
    if type(conv) is not nn.Conv2d and not is_plain(conv, shape, padding):
        why = f"{type(conv).__name__} is not a plain convolution"
        return Meaning("opaque", why=why)
    return Meaning("conv", conv=_spec(conv, padding))


def _spec(conv: nn.Conv2d, padding: Sides) -> ConvSpec:
    return ConvSpec(
        in_channels=conv.in_channels,
        out_channels=conv.out_channels,
        kernel=_pair(conv.kernel_size),
        stride=_pair(conv.stride),
        padding=padding,
        dilation=_pair(conv.dilation),
        groups=conv.groups,
        bias=conv.bias is not None,
    )


def _pool(call: Call) -> Meaning:
    return _average(call, call.module)


def _pool_function(call: Call) -> Meaning:
    numbers: Any = call.node.args[1:]
    options: Any = call.node.kwargs
    try:
        return _average(call, nn.AvgPool2d(*numbers, **options))
    except (TypeError, ValueError):
        return Meaning("opaque", why="average pooling with a computed size")


def _average(call: Call, pool: nn.AvgPool2d) -> Meaning:
    (source,), out = call.inputs, call.shape
    if len(source) != 3:
        return Meaning("opaque", why="it does not work on images")
    kernel, padding = _pair(pool.kernel_size), _pair(pool.padding)
    stride = _pair(pool.stride or pool.kernel_size)
    if pool.divisor_override:
        return Meaning("opaque", why="average pooling with another divisor")
    if padding != (0, 0) and not pool.count_include_pad:
        why = "average pooling that leaves its padding out of the count"
        return Meaning("opaque", why=why)
    for d in (0, 1):
        reach = (out[1 + d] - 1) * stride[d] + kernel[d]
        if reach > source[1 + d] + 2 * padding[d]:
            why = "average pooling with a partial last window"
            return Meaning("opaque", why=why)
    spec = ConvSpec(
        in_channels=source[0],
        out_channels=source[0],
        kernel=kernel,
        stride=stride,
        padding=((padding[0],) * 2, (padding[1],) * 2),
        groups=source[0],
        bias=False,
    )
    return Meaning("avgpool", conv=spec)


def _zero_pad(call: Call) -> Meaning:
    left, right, top, bottom = call.module.padding
    return _pad(((top, bottom), (left, right)))


def _pad_function(call: Call) -> Meaning:
    names = ("input", "pad", "mode", "value")
    options = dict(zip(names, call.node.args, strict=False)) | call.node.kwargs
    mode, value = options.get("mode", "constant"), options.get("value")
    if mode != "constant" or value not in (None, 0, 0.0):
        return Meaning("opaque", why="it pads with something else than zeros")
    amounts: Any = options.get("pad")
    known = isinstance(amounts, tuple | list) and all(isinstance(a, int) for a in amounts)
    if not known or len(amounts) > 4:
        return Meaning("opaque", why="it pads by a computed amount")
    left, right, top, bottom = (*amounts, 0, 0, 0, 0)[:4]
    return _pad(((top, bottom), (left, right)))


def _pad(sides: Sides) -> Meaning:
    if min(min(s) for s in sides) < 0:
        return Meaning("opaque", why="it crops")
    return Meaning("pad", padding=sides)


def _pair(value: Any) -> Pair:
    first, second = value if isinstance(value, tuple | list) else (value, value)
    return (int(first), int(second))


def _max_pool(call: Call) -> Meaning:
    return Meaning("opaque", why="max pooling is not linear", role="keeps")


def _global_pool(call: Call) -> Meaning:
    why = "global pooling is not a convolution"
    return Meaning("opaque", why=why, role="keeps")


def _reduction(call: Call) -> Meaning:
    why = "global pooling (or another reduction) is not a convolution"
    return Meaning("opaque", why=why, role="keeps" if _is_spatial(call) else "")


def _is_spatial(call: Call) -> bool:
    """Whether a reduction of one image runs over height and width alone."""
    arguments = dict(zip(("input", "dim"), call.node.args, strict=False))
    dim: Any = {**arguments, **call.node.kwargs}.get("dim", ())
    axes = {*dim} if isinstance(dim, tuple | list) else {dim}
    return len(call.inputs[0]) == 3 and bool(axes) and axes <= {-2, -1, 2, 3}


def _product(call: Call) -> Meaning:
    why = "it multiplies two tensors (squeeze-excite, a gate or a scale)"
    alike = len({len(shape) for shape in call.inputs}) == 1
    same = len({shape[:1] for shape in call.inputs}) == 1
    role: Role = "gate" if alike and same and len(call.shape) == 3 else ""
    return Meaning("opaque", why=why, role=role)


def _reshape(call: Call) -> Meaning:
    """Describe a reshape, which keeps the channels of a vector (one pixel)."""
    shapes, channels = (call.shape, *call.inputs), call.shape[:1]
    vector = all(shape in (channels, (*channels, 1, 1)) for shape in shapes)
    return Meaning("opaque", why="a reshape", role="keeps" if vector else "")


def _linear(call: Call) -> Meaning:
    why, layer = "a fully connected layer", call.module
    if len(call.inputs[0]) != 1 or call.shared:
        return Meaning("opaque", why=why)
    spec = ConvSpec(
        in_channels=layer.in_features,
        out_channels=layer.out_features,
        kernel=(1, 1),
        bias=layer.bias is not None,
    )
    return Meaning("opaque", why=why, role="mixes", mixes=spec)


_NO_PADDING = ((0, 0), (0, 0))
_ATTENTION = opaque("attention is not linear")
_OWN_STATISTICS = opaque("it normalises with each image's own statistics")
_CONCATENATION = opaque("concatenation")
_SPLIT = opaque("a split of channels")
_REORDERING = opaque("a reordering of dimensions")

# The type of a module or its name, a function, or the name of a method.
HANDLERS: dict[Any, Handler] = {
    **dict.fromkeys(ACTIVATION_TYPES, _activation),
    **dict.fromkeys(IDENTITY_NAMES, _identity_by_name),
    nn.Identity: _identity,
    nn.Dropout: _identity,
    nn.Dropout2d: _identity,
    nn.AlphaDropout: _identity,
    F.dropout: _identity,
    F.dropout2d: _identity,
    torch.Tensor.contiguous: _identity,
    "contiguous": _identity,
    operator.add: _add,
    nn.BatchNorm2d: _norm,
    nn.SyncBatchNorm: _norm,
    FrozenBatchNorm2d: _norm,
    nn.AvgPool2d: _pool,
    F.avg_pool2d: _pool_function,
    nn.ZeroPad2d: _zero_pad,
    F.pad: _pad_function,
    nn.AdaptiveAvgPool2d: _global_pool,
    nn.AdaptiveMaxPool2d: _global_pool,
    F.adaptive_avg_pool2d: _global_pool,
    F.adaptive_max_pool2d: _global_pool,
    torch.mean: _reduction,
    "mean": _reduction,
    "amax": _reduction,
    nn.MaxPool2d: _max_pool,
    F.max_pool2d: _max_pool,
    nn.MultiheadAttention: _ATTENTION,
    F.scaled_dot_product_attention: _ATTENTION,
    operator.matmul: _ATTENTION,
    torch.matmul: _ATTENTION,
    torch.bmm: _ATTENTION,
    "matmul": _ATTENTION,
    "bmm": _ATTENTION,
    nn.LayerNorm: _OWN_STATISTICS,
    nn.GroupNorm: _OWN_STATISTICS,
    nn.InstanceNorm2d: _OWN_STATISTICS,
    nn.Linear: _linear,
    nn.Flatten: _reshape,
    nn.ConvTranspose2d: opaque("a transposed convolution"),
    operator.mul: _product,
    torch.mul: _product,
    "mul": _product,
    torch.cat: _CONCATENATION,
    torch.concat: _CONCATENATION,
    torch.split: _SPLIT,
    torch.chunk: _SPLIT,
    "chunk": _SPLIT,
    "split": _SPLIT,
    torch.flatten: _reshape,
    "flatten": _reshape,
    "view": _reshape,
    "reshape": _reshape,
    torch.permute: _REORDERING,
    "permute": _REORDERING,
    torch.transpose: _REORDERING,
}
