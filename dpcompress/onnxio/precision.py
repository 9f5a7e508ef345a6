"""An ONNX graph in the numbers of a precision, for engines that take them from the graph
alone."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx
from onnx import TensorProto, defs, numpy_helper

from dpcompress.errors import BadInput
from dpcompress.onnxio.model import fault, parse

_FLOATS = (TensorProto.FLOAT, TensorProto.DOUBLE)


def in_precision(graph: bytes, precision: str) -> bytes:
    """Write `graph` in the numbers that an engine of this precision computes in: a
    float16 copy for fp16, else unchanged (tf32 rounds inside the engine)."""
    return to_float16(graph) if precision == "fp16" else graph


def to_float16(graph: bytes) -> bytes:
    """Copy a graph with float16 weights, inputs and outputs.

    Inputs that an operator defines as float32 in any case, such as the scales of Resize,
    stay float32. A float16 graph is returned unchanged.

    Raises:
        BadInput: `graph` is not ONNX, a weight is beyond float16, or an operator does
            not exist in float16.
    """
    model = parse(graph)
    body = model.graph
    fixed = _always_float32(model)
    constants = [(tensor.name, tensor) for tensor in body.initializer]
    for node in body.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to":
                attribute.i = _half(attribute.i)
            elif node.op_type == "Constant" and attribute.type == attribute.TENSOR:
                constants.append((node.output[0], attribute.t))
    for name, tensor in constants:
        if tensor.data_type in _FLOATS and name not in fixed:
            tensor.CopyFrom(_halved(tensor))
    for value in (*body.input, *body.output):
        kind = value.type.tensor_type
        kind.elem_type = _half(kind.elem_type)
    del body.value_info[:]
    wrong = fault(model)
    if wrong is not None:
        raise BadInput(
            f"The graph cannot be written in float16: {wrong}.",
            "Choose --precision fp32.",
        )
    return bytes(model.SerializeToString(deterministic=True))


def _half(kind: int) -> int:
    return TensorProto.FLOAT16 if kind in _FLOATS else kind


def _halved(tensor: TensorProto) -> TensorProto:
    value = numpy_helper.to_array(tensor)
    with np.errstate(over="ignore"):
        half = value.astype(np.float16)
    if np.isinf(half).any() and not np.isinf(value).any():
        raise BadInput(
            f"The weights {tensor.name} reach {np.abs(value).max():.3g}; float16 ends at "
            "65504.",
            "Choose --precision fp32.",
        )
    return numpy_helper.from_array(half, tensor.name)


def _always_float32(model: onnx.ModelProto) -> set[str]:
    """The names of tensors that some operator defines as float32 and nothing else."""
    versions = {opset.domain: opset.version for opset in model.opset_import}
    found: set[str] = set()
    for node in model.graph.node:
        try:
            schema = defs.get_schema(node.op_type, versions[node.domain], node.domain)
        except (defs.SchemaError, KeyError):
            continue
        for name, declared in zip(node.input, _inputs(schema, node), strict=False):
            if declared == "tensor(float)":
                found.add(name)
    return found - {""}


def _inputs(schema: defs.OpSchema, node: onnx.NodeProto) -> Iterable[str]:
    """The declared type of each input of a node; the last one may be repeated."""
    declared = [parameter.type_str for parameter in schema.inputs]
    return declared + declared[-1:] * max(len(node.input) - len(declared), 0)
