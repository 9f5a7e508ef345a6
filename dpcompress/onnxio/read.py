"""An ONNX graph as calls of torch functions: the operators that image networks are made
of, with fixed shapes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import onnx
import torch
from google.protobuf.message import DecodeError
from onnx import helper, numpy_helper
from torch import Tensor
from torch.nn import functional as F

from dpcompress.errors import BadInput

Attributes = dict[str, Any]
Constants = dict[str, np.ndarray]
Function = Callable[..., Tensor]


class OnnxInTorch:
    """Callable with one tensor per input, in order; returns the list of outputs.

    inputs: name → shape, batch first. outputs: names.

    Raises:
        BadInput: not a graph, a shape that is open, or an operator that is not known
            here; names it.
    """

    def __init__(self, data: bytes, device: str, kind: torch.dtype) -> None:
        try:
            graph = onnx.load_from_string(data).graph
        except DecodeError as error:
            raise BadInput("torch rejects the graph: it is not ONNX.") from error
        self._device, self._kind = device, kind
        constants = {c.name: numpy_helper.to_array(c) for c in graph.initializer}
        self.inputs = {i.name: _shape(i) for i in graph.input if i.name not in constants}
        self.outputs = [output.name for output in graph.output]
        self._steps: list[tuple[Function, list[str], str]] = []
        used: set[str] = set()
        for node in graph.node:
            if node.op_type == "Constant":
                constants[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
                continue
            function, names = _translate(node, constants)
            self._steps.append((function, names, node.output[0]))
            used.update(names)
        self._weights = {n: self.tensor(constants[n]) for n in used & constants.keys()}
        self._last_use = self._last_uses()

    def tensor(self, value: np.ndarray) -> Tensor:
        """`value` as the graph takes it: on its device, channels last."""
        tensor = torch.from_numpy(np.array(value))
        if tensor.is_floating_point():
            tensor = tensor.to(self._kind)
        tensor = tensor.to(self._device)
        if tensor.dim() == 4:
            tensor = tensor.contiguous(memory_format=torch.channels_last)
        return tensor

    def __call__(self, *inputs: Tensor) -> list[Tensor]:
        values = {**self._weights, **dict(zip(self.inputs, inputs, strict=True))}
        for (function, names, output), done in zip(
            self._steps, self._last_use, strict=True
        ):
            values[output] = function(*[values[name] for name in names])
            for name in done:  # its memory can serve the next ones
                del values[name]
        return [values[name] for name in self.outputs]

    def _last_uses(self) -> list[list[str]]:
        """For each step, the tensors that no later step reads."""
        seen = {*self.outputs, *self._weights, *self.inputs}
        found = []
        for _, names, _ in reversed(self._steps):
            found.append([name for name in dict.fromkeys(names) if name not in seen])
            seen.update(names)
        return found[::-1]


def _shape(value: onnx.ValueInfoProto) -> tuple[int, ...]:
    sizes = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
    if not all(size > 0 for size in sizes):
        raise BadInput(
            f"Input {value.name} of the graph has no fixed shape.",
            "Export with a fixed batch size.",
        )
    return tuple(sizes)


def _translate(node: onnx.NodeProto, constants: Constants) -> tuple[Function, list[str]]:
    """A function, and the names of its tensors."""
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    names = list(node.input)
    if node.op_type in _SIMPLE:
        return _SIMPLE[node.op_type], names
    if node.op_type in _SHAPED:
        made = _SHAPED[node.op_type](attributes, [constants.get(n) for n in names])
        function, count = made if isinstance(made, tuple) else (made, 1)
        return function, [name for name in names[:count] if name]
    raise BadInput(
        f"torch rejects the graph: the operator {node.op_type} "
        f"({node.name or 'unnamed'}) is not known here.",
        "Measure on another engine, or leave this op out.",
    )


_SIMPLE: dict[str, Function] = {
    "Add": torch.add,
    "Div": torch.div,
    "Erf": torch.erf,
    "Exp": torch.exp,
    "GlobalAveragePool": partial(F.adaptive_avg_pool2d, output_size=1),
    "HardSwish": F.hardswish,
    "Identity": lambda x: x,
    "MatMul": torch.matmul,
    "Mish": F.mish,
    "Mul": torch.mul,
    "PRelu": lambda x, slope: torch.where(x >= 0, x, x * slope),
    "Relu": F.relu,
    "Sigmoid": torch.sigmoid,
    "Softplus": F.softplus,
    "Softsign": F.softsign,
    "Sqrt": torch.sqrt,
    "Sub": torch.sub,
    "Tanh": torch.tanh,
}
"""Operators without attributes → their function."""


def _conv(a: Attributes, values: list[np.ndarray | None]) -> tuple[Function, int]:
    before, after = _halves(a.get("pads", [0, 0, 0, 0]))
    options = {
        "stride": tuple(a.get("strides", (1, 1))),
        "dilation": tuple(a.get("dilations", (1, 1))),
        "groups": a.get("group", 1),
    }
    count = len(values)
    if before == after:
        return partial(F.conv2d, padding=before, **options), count
    sides = _sides(before, after)
    return lambda x, *rest: F.conv2d(F.pad(x, sides), *rest, **options), count


def _pool(a: Attributes, function: Function, empty: float, **more: Any) -> Function:
    before, after = _halves(a.get("pads", [0, 0, 0, 0]))
    kernel = tuple(a["kernel_shape"])
    options = {
        "kernel_size": kernel,
        "stride": tuple(a.get("strides", (1, 1))),
        "ceil_mode": bool(a.get("ceil_mode", 0)),
        **more,
    }
    if before == after and all(2 * p <= k for p, k in zip(before, kernel, strict=True)):
        return partial(function, padding=before, **options)
    sides = _sides(before, after)
    return lambda x: function(F.pad(x, sides, value=empty), **options)


def _avg_pool(a: Attributes, values: list[np.ndarray | None]) -> Function:
    counted = bool(a.get("count_include_pad", 0))
    before, after = _halves(a.get("pads", [0, 0, 0, 0]))
    if before != after and not counted:
        raise BadInput(
            "torch rejects the graph: AveragePool with uneven padding that is not "
            "counted is not known here."
        )
    return _pool(a, F.avg_pool2d, 0.0, count_include_pad=counted)


def _max_pool(a: Attributes, values: list[np.ndarray | None]) -> Function:
    dilation = tuple(a.get("dilations", (1, 1)))
    return _pool(a, F.max_pool2d, float("-inf"), dilation=dilation)


def _clip(a: Attributes, values: list[np.ndarray | None]) -> Function:
    low, high = (
        None if value is None else float(value) for value in (*values, None, None)[1:3]
    )
    return partial(torch.clamp, min=low, max=high)


def _gemm(a: Attributes, values: list[np.ndarray | None]) -> tuple[Function, int]:
    if a.get("transA") or a.get("alpha", 1.0) != 1 or a.get("beta", 1.0) != 1:
        raise BadInput("torch rejects the graph: a Gemm with factors is not known here.")
    if a.get("transB"):
        return F.linear, len(values)
    return lambda x, w, *bias: F.linear(x, w.T, *bias), len(values)


def _norm(a: Attributes, values: list[np.ndarray | None]) -> tuple[Function, int]:
    epsilon = a.get("epsilon", 1e-5)
    return (
        lambda x, scale, bias, mean, var: F.batch_norm(
            x, mean, var, scale, bias, eps=epsilon
        ),
        5,
    )


def _pad(a: Attributes, values: list[np.ndarray | None]) -> Function:
    mode = a.get("mode", b"constant").decode()
    amounts, value = (*values, None, None)[1:3]
    if mode != "constant" or amounts is None or len(amounts) != 8 or len(values) > 3:
        raise BadInput(
            "torch rejects the graph: Pad is known here with constants of images only."
        )
    top, left, bottom, right = (int(amounts[i]) for i in (2, 3, 6, 7))
    fill = 0.0 if value is None else float(value)
    return partial(F.pad, pad=(left, right, top, bottom), value=fill)


def _mean(a: Attributes, values: list[np.ndarray | None]) -> Function:
    axes = a["axes"] if "axes" in a else np.asarray(values[1]).tolist()
    return partial(torch.mean, dim=tuple(axes), keepdim=bool(a.get("keepdims", 1)))


def _reshape(a: Attributes, values: list[np.ndarray | None]) -> Function:
    if values[1] is None:
        raise BadInput("torch rejects the graph: a Reshape to a shape that is computed.")
    sizes = values[1].tolist()
    return lambda x: x.reshape(
        [x.shape[i] if size == 0 else size for i, size in enumerate(sizes)]
    )


def _transpose(a: Attributes, values: list[np.ndarray | None]) -> Function:
    return lambda x: x.permute(a.get("perm") or tuple(range(x.dim()))[::-1])


def _concat(a: Attributes, values: list[np.ndarray | None]) -> tuple[Function, int]:
    return lambda *parts: torch.cat(parts, dim=a["axis"]), len(values)


def _hard_sigmoid(a: Attributes, values: list[np.ndarray | None]) -> Function:
    alpha, beta = a.get("alpha", 0.2), a.get("beta", 0.5)
    if beta == 0.5 and abs(alpha - 1 / 6) < 1e-6:
        return F.hardsigmoid
    return lambda x: torch.clamp(x * alpha + beta, 0, 1)


_SHAPED: dict[str, Callable[..., Any]] = {
    "AveragePool": _avg_pool,
    "BatchNormalization": _norm,
    "Celu": lambda a, v: partial(F.celu, alpha=a.get("alpha", 1.0)),
    "Clip": _clip,
    "Concat": _concat,
    "Conv": _conv,
    "Dropout": lambda a, v: _SIMPLE["Identity"],
    "Elu": lambda a, v: partial(F.elu, alpha=a.get("alpha", 1.0)),
    "Flatten": lambda a, v: partial(torch.flatten, start_dim=a.get("axis", 1)),
    "Gelu": lambda a, v: partial(
        F.gelu, approximate=a.get("approximate", b"none").decode()
    ),
    "Gemm": _gemm,
    "HardSigmoid": _hard_sigmoid,
    "LeakyRelu": lambda a, v: partial(F.leaky_relu, negative_slope=a.get("alpha", 0.01)),
    "MaxPool": _max_pool,
    "Pad": _pad,
    "ReduceMean": _mean,
    "Reshape": _reshape,
    "Selu": lambda a, v: F.selu,
    "Softmax": lambda a, v: partial(torch.softmax, dim=a.get("axis", -1)),
    "Transpose": _transpose,
}
"""Operators with attributes or constant arguments: (attributes, the values of its inputs
that are constants) → the function, and how many of the inputs it takes, if not one."""


def _halves(pads: list[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """ONNX pads: the beginnings of all dimensions, then the ends."""
    half = len(pads) // 2
    return tuple(pads[:half]), tuple(pads[half:])


def _sides(before: tuple[int, ...], after: tuple[int, ...]) -> list[int]:
    """As `F.pad` takes them: both sides of the last dimension first."""
    pairs = zip(reversed(before), reversed(after), strict=True)
    return [amount for pair in pairs for amount in pair]
