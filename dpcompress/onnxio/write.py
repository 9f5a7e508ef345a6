"""Programs as ONNX bytes, in the operators that an exported network would hold.

Weights are random, seeded by the program's signature: times do not depend on them, and
the same program always gives the same bytes.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from dpcompress.blueprint import ConvSpec, Sides, split_activation
from dpcompress.errors import BadInput
from dpcompress.onnxio.portable import IR_VERSION, OPSET
from dpcompress.ways.program import Program, Shape, Step

# Random values repeat after a prime number of them: no filter is another one's copy, yet
# a bundle of many large graphs compresses well.
_PERIOD = 4093


class Graph:
    """An ONNX graph under construction; methods add to it and return tensor names.

    Args:
        seed: text that the random weights depend on.
        batch: images per inference.
    """

    def __init__(self, seed: str, batch: int) -> None:
        seed_number = int.from_bytes(hashlib.sha256(seed.encode()).digest()[:8], "big")
        self._rng = np.random.default_rng(seed_number)
        self._batch = batch
        self._nodes: list[onnx.NodeProto] = []
        self._inputs: list[onnx.ValueInfoProto] = []
        self._constants: list[onnx.TensorProto] = []
        self._names = 0

    def input(self, shape: Shape) -> str:
        """Add an input of `shape`, without the batch."""
        name = f"input{len(self._inputs)}"
        self._inputs.append(self._info(name, shape))
        return name

    def add(self, operator: str, inputs: Sequence[str], **attributes: Any) -> str:
        """Add a node of one output."""
        name = self._name()
        self._nodes.append(helper.make_node(operator, inputs, [name], **attributes))
        return name

    def constant(self, value: np.ndarray) -> str:
        name = self._name()
        self._constants.append(numpy_helper.from_array(value, name))
        return name

    def scalar(self, value: float) -> str:
        return self.constant(np.array(value, dtype=np.float32))

    def random(self, *shape: int) -> str:
        """Add a constant of standard normal values."""
        return self.constant(self._normal(*shape))

    def _normal(self, *shape: int) -> np.ndarray:
        values = self._rng.standard_normal(_PERIOD, dtype=np.float32)
        return np.resize(values, shape)

    def conv(self, source: str, conv: ConvSpec) -> str:
        """Add a convolution that keeps the variance of standard normal inputs."""
        per_group = conv.in_channels // conv.groups
        shape = (conv.out_channels, per_group, *conv.kernel)
        weight = self._normal(*shape)
        weight /= np.sqrt(per_group * conv.kernel[0] * conv.kernel[1])
        inputs = [source, self.constant(weight)]
        if conv.bias:
            inputs.append(self.random(conv.out_channels))
        return self.add(
            "Conv",
            inputs,
            kernel_shape=conv.kernel,
            strides=conv.stride,
            pads=pads(conv.padding),
            dilations=conv.dilation,
            group=conv.groups,
        )

    def step(self, step: Step, inputs: Sequence[str]) -> str:
        """Add one step of a program, which reads the tensors `inputs`.

        Raises:
            BadInput: the step's activation is not in `ACTIVATIONS`.
        """
        source = inputs[0]
        if step.kind == "conv" and step.conv is not None:
            return self.conv(source, step.conv)
        if step.kind == "avgpool" and step.conv is not None:
            return self.add(
                "AveragePool",
                [source],
                kernel_shape=step.conv.kernel,
                strides=step.conv.stride,
                pads=pads(step.conv.padding),
                count_include_pad=1,
            )
        if step.kind == "pad" and step.padding is not None:
            (top, bottom), (left, right) = step.padding
            ends = np.array([0, 0, top, left, 0, 0, bottom, right], dtype=np.int64)
            return self.add("Pad", [source, self.constant(ends), self.scalar(0)])
        if step.kind == "norm":
            channels = step.shape[0]
            ones = [self.constant(np.ones(channels, np.float32)) for _ in range(2)]
            zeros = [self.constant(np.zeros(channels, np.float32)) for _ in range(2)]
            scale, variance = ones
            return self.add("BatchNormalization", [source, scale, *zeros, variance])
        if step.kind == "add":
            total = source
            for other in inputs[1:]:
                total = self.add("Add", [total, other])
            return total
        name, parameters = split_activation(step.act or "")
        if step.kind == "act" and name in ACTIVATIONS:
            return ACTIVATIONS[name](self, source, *parameters)
        raise BadInput(
            f"The activation {step.act!r} cannot be measured.",
            f"Known are: {', '.join(sorted(ACTIVATIONS))}.",
        )

    def finish(self, outputs: dict[str, Shape]) -> bytes:
        """Check and serialise the model whose outputs are these tensors (name → shape
        without the batch)."""
        graph = helper.make_graph(
            self._nodes,
            "op",
            self._inputs,
            [self._info(name, shape) for name, shape in outputs.items()],
            self._constants,
        )
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="dpcompress",
        )
        onnx.checker.check_model(model, full_check=True)
        return bytes(model.SerializeToString(deterministic=True))

    def _info(self, name: str, shape: Shape) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(
            name, TensorProto.FLOAT, [self._batch, *shape]
        )

    def _name(self) -> str:
        self._names += 1
        return f"t{self._names}"


def pads(sides: Sides) -> tuple[int, int, int, int]:
    """Order padding as ONNX does: the beginnings of all dimensions, then their ends."""
    (top, bottom), (left, right) = sides
    return top, left, bottom, right


def plain_graph(program: Program, batch: int) -> bytes:
    """Write a program alone: its sources are the graph's inputs, its output the graph's
    output."""
    graph = Graph(program.signature, batch)
    tensors = [graph.input(source.shape) for source in program.sources]
    output = add_program(graph, program, tensors)
    return graph.finish({output: program.shape})


def add_program(graph: Graph, program: Program, sources: Sequence[str]) -> str:
    """Add the steps of a program to `graph`; returns the name of its output."""
    tensors = list(sources)
    for step in program.steps:
        tensors.append(graph.step(step, [tensors[i] for i in step.inputs]))
    return tensors[-1]


# Adds the nodes of an activation of a tensor, with its parameters, to a graph.
Activation = Callable[..., str]


def _clip(graph: Graph, x: str, low: float, high: float) -> str:
    return graph.add("Clip", [x, graph.scalar(low), graph.scalar(high)])


def _one(operator: str, **attributes: Any) -> Activation:
    """One node, with the activation's parameters in place of its first attributes."""

    def write(graph: Graph, x: str, *parameters: Any) -> str:
        own = dict(zip(attributes, parameters, strict=False))
        return graph.add(operator, [x], **{**attributes, **own})

    return write


def _silu(graph: Graph, x: str) -> str:
    return graph.add("Mul", [x, graph.add("Sigmoid", [x])])


def _mish(graph: Graph, x: str) -> str:
    return graph.add("Mul", [x, graph.add("Tanh", [graph.add("Softplus", [x])])])


def _gelu(graph: Graph, x: str, approximate: str = "none") -> str:
    if approximate == "tanh":
        cube = graph.add("Mul", [x, graph.add("Mul", [x, x])])
        inner = graph.add("Add", [x, graph.add("Mul", [cube, graph.scalar(0.044715)])])
        scaled = graph.add("Mul", [inner, graph.scalar((2 / math.pi) ** 0.5)])
        share = graph.add("Add", [graph.add("Tanh", [scaled]), graph.scalar(1)])
        return graph.add("Mul", [graph.add("Mul", [x, share]), graph.scalar(0.5)])
    erf = graph.add("Erf", [graph.add("Div", [x, graph.scalar(2**0.5)])])
    product = graph.add("Mul", [x, graph.add("Add", [erf, graph.scalar(1)])])
    return graph.add("Mul", [product, graph.scalar(0.5)])


def _prelu(graph: Graph, x: str) -> str:
    return graph.add("PRelu", [x, graph.constant(np.full((1, 1, 1), 0.25, np.float32))])


# Name in torch.nn.functional → writes the nodes that torch.onnx writes for it.
ACTIVATIONS: dict[str, Activation] = {
    "celu": _one("Celu", alpha=1.0),
    "elu": _one("Elu", alpha=1.0),
    "gelu": _gelu,
    "hardsigmoid": _one("HardSigmoid", alpha=1 / 6, beta=0.5),
    "hardswish": _one("HardSwish"),
    "hardtanh": lambda graph, x, low=-1.0, high=1.0: _clip(graph, x, low, high),
    "leaky_relu": _one("LeakyRelu", alpha=0.01),
    "mish": _mish,
    "prelu": _prelu,
    "relu": _one("Relu"),
    "relu6": lambda graph, x: _clip(graph, x, 0, 6),
    "selu": _one("Selu"),
    "sigmoid": _one("Sigmoid"),
    "silu": _silu,
    "softplus": _one("Softplus"),
    "softsign": _one("Softsign"),
    "tanh": _one("Tanh"),
}
