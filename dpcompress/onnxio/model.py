"""ONNX bytes as a model: parsing, validity, and the tensors at its ends."""

from __future__ import annotations

import onnx
from google.protobuf.message import DecodeError

from dpcompress.errors import BadInput, first_line


def parse(data: bytes) -> onnx.ModelProto:
    """Parse `data` as an ONNX model.

    Raises:
        BadInput: `data` is not ONNX, or was cut off.
    """
    try:
        model = onnx.load_from_string(data)
    except DecodeError as error:
        raise BadInput(
            "This is no ONNX graph, or a truncated one.", "Export it again."
        ) from error
    if not model.HasField("graph"):
        raise BadInput("This is no ONNX graph, but an empty one.", "Export it again.")
    return model


def fault(model: onnx.ModelProto | bytes) -> str | None:
    """Say in one line what the ONNX checker finds wrong with a model; None if nothing."""
    try:
        onnx.checker.check_model(model, full_check=True)
    except (
        onnx.checker.ValidationError,
        onnx.shape_inference.InferenceError,
        ValueError,
    ) as error:
        return first_line(error)
    return None


def input_shapes(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """Map each input that is not a constant to its shape, batch first, in order.

    Raises:
        BadInput: a shape is open.
    """
    constants = {tensor.name for tensor in model.graph.initializer}
    found = {}
    for value in model.graph.input:
        if value.name in constants:
            continue
        sizes = tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)
        if not all(size > 0 for size in sizes):
            raise BadInput(
                f"Input {value.name} of the graph has no fixed shape.",
                "Export with a fixed batch size.",
            )
        found[value.name] = sizes
    return found
