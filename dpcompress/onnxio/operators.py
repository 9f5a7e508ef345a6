"""The ONNX operators of image networks, each as the torch module or function that
computes the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np
import onnx
import torch
from onnx import helper
from torch import Tensor, fx, nn
from torch.nn import functional as F

from dpcompress.errors import BadInput
from dpcompress.onnxio.network import Network

Function = Callable[..., Tensor]
Pair = tuple[int, int]
_SELU_ALPHA, _SELU_GAMMA = 1.67326319217681884765625, 1.05070102214813232421875


class Operator:
    """The attributes and inputs of an ONNX node, and what adds it to a torch network."""

    def __init__(self, node: onnx.NodeProto, network: Network) -> None:
        self._node, self._network = node, network
        self._attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}

    def get(self, attribute: str, default: Any = None) -> Any:
        """The value of an attribute, `default` if the node does not say."""
        return self._attributes.get(attribute, default)

    def constant(self, index: int) -> np.ndarray | None:
        """The value of input number `index`; None if it is left out or computed."""
        if index >= len(self._node.input):
            return None
        return self._network.constants.get(self._node.input[index])

    def tensor(self, index: int) -> fx.Node:
        """Return input number `index` as a tensor of the network."""
        return self._network.tensor(self._node.input[index])

    def tensors(self) -> list[fx.Node]:
        """List all inputs that are not left out, as tensors of the network."""
        return [self._network.tensor(name) for name in self._node.input if name]

    @property
    def fixed(self) -> bool:
        """Whether all inputs but the first are constants or left out."""
        rest = self._node.input[1:]
        return all(not name or name in self._network.constants for name in rest)

    def module(self, module: nn.Module, x: fx.Node) -> fx.Node:
        """Add a module, applied to `x`, under the node's own name."""
        return self._network.module(self._node.name or self._node.op_type, module, x)

    def call(self, function: Function, *args: Any, **options: Any) -> fx.Node:
        """Add a call of a function."""
        return self._network.graph.call_function(function, args, options)

    def refused(self, why: str) -> BadInput:
        """The error that says why the node cannot be read."""
        return BadInput(
            f"The ONNX operator {self._node.op_type} ({self._node.name or 'unnamed'}) "
            f"{why}.",
            "Export the network without it.",
        )


Converter = Callable[[Operator], fx.Node]


def convert(node: onnx.NodeProto, network: Network) -> fx.Node:
    """Add what an ONNX node computes to `network`; returns its first output.

    Raises:
        BadInput: the operator, or one of its attributes, is not known here.
    """
    operator = Operator(node, network)
    if node.op_type not in CONVERTERS:
        raise operator.refused("is not known here")
    return CONVERTERS[node.op_type](operator)


def _called(function: Function) -> Converter:
    return lambda op: op.call(function, *op.tensors())


def _layer(make: Callable[[], nn.Module]) -> Converter:
    return lambda op: op.module(make(), op.tensor(0))


def _identity(op: Operator) -> fx.Node:
    return op.tensor(0)


def _dropout(op: Operator) -> fx.Node:
    if not op.fixed or op.constant(2):
        raise op.refused("drops values, as in training")
    return op.tensor(0)


def _conv(op: Operator) -> fx.Node:
    x, padding = _padded(op, 0.0)
    options = {
        "stride": tuple(op.get("strides", (1, 1))),
        "padding": padding,
        "dilation": tuple(op.get("dilations", (1, 1))),
        "groups": op.get("group", 1),
    }
    if not op.fixed:
        return op.call(F.conv2d, x, *op.tensors()[1:], **options)
    weight, bias = op.constant(1), op.constant(2)
    if weight is None or weight.ndim != 4:
        raise op.refused("does not work on images")
    out_channels, per_group, height, width = weight.shape
    in_channels, kernel = per_group * options["groups"], (height, width)
    conv = nn.Conv2d(in_channels, out_channels, kernel, device="meta", **options)
    return op.module(_with_weights(conv, weight=weight, bias=bias), x)


def _gemm(op: Operator) -> fx.Node:
    if op.get("transA") or op.get("alpha", 1.0) != 1 or op.get("beta", 1.0) != 1:
        raise op.refused("has factors, which are not known here")
    weight, bias = op.constant(1), op.constant(2)
    if not op.fixed or weight is None:
        x, weights, *rest = op.tensors()
        if not op.get("transB"):
            weights = op.call(torch.t, weights)
        return op.call(F.linear, x, weights, *rest)
    if not op.get("transB"):
        weight = weight.T
    linear = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
    return op.module(_with_weights(linear, weight=weight, bias=bias), op.tensor(0))


class BatchNorm(nn.BatchNorm2d):
    """The batch norm for tensors of any number of dimensions."""

    def _check_input_dim(self, input: Tensor) -> None:
        pass


def _norm(op: Operator) -> fx.Node:
    epsilon = op.get("epsilon", 1e-5)
    scale, bias, mean, variance = (op.constant(i) for i in range(1, 5))
    if not op.fixed or scale is None:
        x, scales, biases, means, variances = op.tensors()
        return op.call(F.batch_norm, x, means, variances, scales, biases, eps=epsilon)
    norm = BatchNorm(len(scale), eps=epsilon, device="meta")
    _with_weights(norm, weight=scale, bias=bias, running_mean=mean, running_var=variance)
    norm.num_batches_tracked = torch.tensor(0)
    return op.module(norm, op.tensor(0))


def _avg_pool(op: Operator) -> fx.Node:
    counted = bool(op.get("count_include_pad", 0))
    if any(step != 1 for step in op.get("dilations", ())):
        raise op.refused("is dilated")
    if not counted and len(op.get("kernel_shape")) == 2 and not _fits_kernel(op):
        raise op.refused("has uneven padding that is not counted")
    return _pool(op, nn.AvgPool2d, 0.0, count_include_pad=counted)


def _max_pool(op: Operator) -> fx.Node:
    dilation = tuple(op.get("dilations", (1, 1)))
    return _pool(op, nn.MaxPool2d, float("-inf"), dilation=dilation)


def _pool(
    op: Operator, make: Callable[..., nn.Module], empty: float, **options: Any
) -> fx.Node:
    if len(op.get("kernel_shape")) != 2:
        raise op.refused("does not work on images")
    x, padding = _padded(op, empty, alone=not _fits_kernel(op))
    pool = make(
        kernel_size=tuple(op.get("kernel_shape")),
        stride=tuple(op.get("strides", (1, 1))),
        padding=padding,
        ceil_mode=bool(op.get("ceil_mode", 0)),
        **options,
    )
    return op.module(pool, x)


def _fits_kernel(op: Operator) -> bool:
    """Whether torch's pooling can pad by itself: evenly, by half a kernel at most."""
    before, after = _sides(op)
    kernel = op.get("kernel_shape")
    return before == after and all(
        2 * pad <= size for pad, size in zip(before, kernel, strict=True)
    )


def _padded(op: Operator, value: float, alone: bool = False) -> tuple[fx.Node, Pair]:
    """The first input, and the padding that the op applies itself: none if sides differ,
    or if `alone` asks for a pad of its own before the op."""
    before, after = _sides(op)
    if before == after and not alone:
        return op.tensor(0), before
    (top, left), (bottom, right) = before, after
    pad = nn.ConstantPad2d((left, right, top, bottom), value)
    return op.module(pad, op.tensor(0)), (0, 0)


def _sides(op: Operator) -> tuple[Pair, Pair]:
    """The padding at the beginnings of all dimensions and at their ends."""
    if op.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID"):
        raise op.refused("leaves its padding to whoever runs it")
    pads = op.get("pads", [0, 0, 0, 0])
    if len(pads) != 4:
        raise op.refused("does not work on images")
    return (pads[0], pads[1]), (pads[2], pads[3])


def _pad(op: Operator) -> fx.Node:
    mode = op.get("mode", b"constant")
    amounts, value, axes = (op.constant(i) for i in (1, 2, 3))
    images = amounts is not None and len(amounts) == 8 and axes is None
    if not images or mode != b"constant" or not op.fixed:
        raise op.refused("is known here with constants around images only")
    assert amounts is not None
    top, left, bottom, right = (int(amounts[i]) for i in (2, 3, 6, 7))
    fill = 0.0 if value is None else float(value)
    return op.module(nn.ConstantPad2d((left, right, top, bottom), fill), op.tensor(0))


def _clip(op: Operator) -> fx.Node:
    if not op.fixed:
        raise op.refused("has bounds that are computed")
    low, high = (None if v is None else float(v) for v in map(op.constant, (1, 2)))
    if low is None and high is None:
        return op.tensor(0)
    if (low, high) == (0.0, 6.0):
        return op.module(nn.ReLU6(), op.tensor(0))
    if low is not None and high is not None and low < high:
        return op.module(nn.Hardtanh(low, high), op.tensor(0))
    return op.call(torch.clamp, op.tensor(0), min=low, max=high)


def _mean(op: Operator) -> fx.Node:
    axes = op.constant(1)
    dims = op.get("axes") if axes is None else axes.tolist()
    if dims is None:
        raise op.refused("has no constant axes")
    keep = bool(op.get("keepdims", 1))
    return op.call(torch.mean, op.tensor(0), dim=tuple(dims), keepdim=keep)


def _reshape(op: Operator) -> fx.Node:
    sizes = op.constant(1)
    if sizes is None:
        raise op.refused("has a shape that is computed")
    return op.call(reshape, op.tensor(0), tuple(sizes.tolist()))


def reshape(x: Tensor, sizes: Sequence[int]) -> Tensor:
    """Reshape as ONNX does: a size of 0 keeps that of `x`, −1 takes what is left."""
    return x.reshape([size or x.shape[i] for i, size in enumerate(sizes)])


def _transpose(op: Operator) -> fx.Node:
    order = op.get("perm")
    if order is None:
        return op.call(reverse_dimensions, op.tensor(0))
    return op.call(torch.permute, op.tensor(0), tuple(order))


def reverse_dimensions(x: Tensor) -> Tensor:
    """The transpose of a tensor of any number of dimensions."""
    return x.permute(tuple(range(x.dim()))[::-1])


def _hard_sigmoid(op: Operator) -> fx.Node:
    alpha, beta = op.get("alpha", 0.2), op.get("beta", 0.5)
    if beta == 0.5 and abs(alpha - 1 / 6) < 1e-6:
        return op.module(nn.Hardsigmoid(), op.tensor(0))
    return op.call(hard_sigmoid, op.tensor(0), alpha, beta)


def hard_sigmoid(x: Tensor, alpha: float, beta: float) -> Tensor:
    """Compute x·alpha + beta, clipped to [0, 1]."""
    return torch.clamp(x * alpha + beta, 0, 1)


def prelu(x: Tensor, slope: Tensor) -> Tensor:
    """Apply PReLU with a slope of any shape that `x` can be multiplied with."""
    return torch.where(x >= 0, x, x * slope)


def _celu(op: Operator) -> fx.Node:
    return op.module(nn.CELU(op.get("alpha", 1.0)), op.tensor(0))


def _elu(op: Operator) -> fx.Node:
    return op.module(nn.ELU(op.get("alpha", 1.0)), op.tensor(0))


def _gelu(op: Operator) -> fx.Node:
    approximate = op.get("approximate", b"none").decode()
    return op.module(nn.GELU(approximate), op.tensor(0))


def _leaky_relu(op: Operator) -> fx.Node:
    return op.module(nn.LeakyReLU(op.get("alpha", 0.01)), op.tensor(0))


def _softmax(op: Operator) -> fx.Node:
    return op.module(nn.Softmax(op.get("axis", -1)), op.tensor(0))


def _selu(op: Operator) -> fx.Node:
    alpha, gamma = op.get("alpha", _SELU_ALPHA), op.get("gamma", _SELU_GAMMA)
    if abs(alpha - _SELU_ALPHA) < 1e-6 and abs(gamma - _SELU_GAMMA) < 1e-6:
        return op.module(nn.SELU(), op.tensor(0))
    return op.call(torch.mul, op.module(nn.ELU(alpha), op.tensor(0)), gamma)


def _flatten(op: Operator) -> fx.Node:
    axis = op.get("axis", 1)
    if axis == 1:
        return op.module(nn.Flatten(), op.tensor(0))
    return op.call(flatten, op.tensor(0), axis)


def flatten(x: Tensor, axis: int) -> Tensor:
    """Flatten as ONNX does: to two dimensions, of those before `axis` and of the rest."""
    rows = prod(x.shape[:axis])
    return x.reshape(rows, x.numel() // max(rows, 1))


def _concat(op: Operator) -> fx.Node:
    return op.call(torch.cat, op.tensors(), dim=op.get("axis"))


CONVERTERS: dict[str, Converter] = {
    "Add": _called(torch.add),
    "AveragePool": _avg_pool,
    "BatchNormalization": _norm,
    "Celu": _celu,
    "Clip": _clip,
    "Concat": _concat,
    "Conv": _conv,
    "Div": _called(torch.div),
    "Dropout": _dropout,
    "Elu": _elu,
    "Erf": _called(torch.erf),
    "Exp": _called(torch.exp),
    "Flatten": _flatten,
    "Gelu": _gelu,
    "Gemm": _gemm,
    "GlobalAveragePool": _layer(lambda: nn.AdaptiveAvgPool2d(1)),
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _layer(nn.Hardswish),
    "Identity": _identity,
    "LeakyRelu": _leaky_relu,
    "MatMul": _called(torch.matmul),
    "MaxPool": _max_pool,
    "Mish": _layer(nn.Mish),
    "Mul": _called(torch.mul),
    "PRelu": _called(prelu),
    "Pad": _pad,
    "ReduceMean": _mean,
    "Relu": _layer(nn.ReLU),
    "Reshape": _reshape,
    "Selu": _selu,
    "Sigmoid": _layer(nn.Sigmoid),
    "Softmax": _softmax,
    "Softplus": _layer(nn.Softplus),
    "Softsign": _layer(nn.Softsign),
    "Sqrt": _called(torch.sqrt),
    "Sub": _called(torch.sub),
    "Tanh": _layer(nn.Tanh),
    "Transpose": _transpose,
}


def _with_weights(module: nn.Module, **values: np.ndarray | None) -> nn.Module:
    """Fill a module that was made without memory; None removes a bias."""
    for name, value in values.items():
        tensor = None if value is None else torch.from_numpy(value.copy("K"))
        if tensor is not None and name in module._parameters:
            tensor = nn.Parameter(tensor)
        setattr(module, name, tensor)
    return module
