"""A float16 copy of an ONNX graph: how an engine that takes its numbers from the graph
alone is asked for fp16."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto, defs, numpy_helper

from dpcompress.errors import BadInput

_FLOATS = (TensorProto.FLOAT, TensorProto.DOUBLE)


def in_precision(graph: bytes, precision: str) -> bytes:
    """`graph` written in the numbers that an engine of this precision computes in: a
    float16 copy for fp16, else as it is (tf32 rounds inside the engine)."""
    return to_float16(graph) if precision == "fp16" else graph


def to_float16(graph: bytes) -> bytes:
    """The same graph with float16 weights, inputs and outputs.

    What an operator defines as float32 whatever it computes in, such as the scales of
    Resize, stays so. A graph that is float16 already comes back as it is.

    Raises:
        BadInput: not ONNX, a weight is beyond float16, or an operator has no float16.
    """
    try:
        model = onnx.load_from_string(graph)
    except DecodeError as error:
        raise BadInput("This is no ONNX graph, or a truncated one.") from error
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
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        line = (str(error).strip().splitlines() or ["no message"])[0]
        raise BadInput(
            f"The graph cannot be written in float16: {line.rstrip('.')}.",
            "Choose --precision fp32.",
        ) from error
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
    """Names of tensors that some operator defines as float32 and nothing else."""
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
    """The declared type of each input; the last one may be repeated."""
    declared = [parameter.type_str for parameter in schema.inputs]
    return declared + declared[-1:] * max(len(node.input) - len(declared), 0)
