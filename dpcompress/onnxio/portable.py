"""The form in which every engine reads an exported graph."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import onnx

# TensorRT 8.5 ignores axes of a mean that are an input, and averages over all of them
# (github.com/NVIDIA/TensorRT/issues/3467). That rules out opset 18.
OPSET, IR_VERSION = 17, 8

# The oldest opset that torch itself writes.
EXPORTED_OPSET = 18


def portable(model: onnx.ModelProto) -> bytes:
    """Serialise a model that torch exported in `EXPORTED_OPSET`, for every engine.

    It becomes one of `OPSET` unless an operator in it is newer. The same network gives
    the same bytes: comments and metadata, in which the exporter leaves stack traces and
    paths, are removed. `model` is changed.
    """
    _strip(model)
    _lower(model)
    return bytes(model.SerializeToString(deterministic=True))


def _strip(model: onnx.ModelProto) -> None:
    graph = model.graph
    described: Iterable[Any] = (
        model,
        graph,
        *graph.node,
        *graph.input,
        *graph.output,
        *graph.value_info,
        *graph.initializer,
    )
    for part in described:
        part.ClearField("doc_string")
        part.ClearField("metadata_props")


def _lower(model: onnx.ModelProto) -> None:
    """Write `model` in `OPSET`, if all operators but means over constant axes are the
    same there."""
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    means: list[onnx.NodeProto] = []
    others: list[onnx.NodeProto] = []
    for node in graph.node:
        is_mean = node.op_type == "ReduceMean" and len(node.input) == 2
        chosen = means if is_mean and node.input[1] in constants else others
        chosen.append(node)
    plain = [opset.domain for opset in model.opset_import] == [""]
    if not plain or not all(map(_is_same, others)):
        return
    for node in means:
        axes = onnx.numpy_helper.to_array(constants[node.input.pop()]).tolist()
        keep = [a for a in node.attribute if a.name == "keepdims"]
        del node.attribute[:]
        node.attribute.extend([onnx.helper.make_attribute("axes", axes), *keep])
    used = {name for node in graph.node for name in node.input}
    for name in constants.keys() - used:
        graph.initializer.remove(constants[name])
    model.opset_import[0].version, model.ir_version = OPSET, IR_VERSION


def _is_same(node: onnx.NodeProto) -> bool:
    """Whether a node, with no graph inside, means the same in both opsets."""
    operator = node.op_type
    if not onnx.defs.has(operator, OPSET) or any(a.HasField("g") for a in node.attribute):
        return False
    old, new = (onnx.defs.get_schema(operator, n) for n in (OPSET, EXPORTED_OPSET))
    return bool(old.since_version == new.since_version)
