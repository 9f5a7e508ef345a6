"""ONNX: export of a torch module, and the comparison of the file with the module."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from dpcompress.errors import UntraceableModel, VerificationFailed, first_line
from dpcompress.exporters.check import ExportCheck, check_session
from dpcompress.runner import IR_VERSION, OPSET, open_engine

_WRITTEN = 18
"""The oldest opset that torch itself writes."""


def export(module: nn.Module, input_shape: tuple[int, int, int], batch: int = 1) -> bytes:
    """`module` in eval mode as an ONNX model of one input and one output.

    It is of opset 17, or of 18 where an operator is a newer one. The batch size is fixed,
    and batch norms are folded into their convolutions. The same module gives the same
    bytes: nothing of the machine is left in the file. The module itself is not changed.

    Args:
        input_shape: (C, H, W) of one image.
        batch: images per inference.

    Raises:
        UntraceableModel: torch cannot capture or translate the module.
    """
    module = copy.deepcopy(module).cpu().float().eval()
    example = torch.zeros(batch, *input_shape)
    try:
        with _quiet(), torch.no_grad():
            module(example)  # its own errors are clearer than the exporter's
            program = torch.onnx.export(
                module,
                (example,),
                input_names=["input"],
                output_names=["output"],
                opset_version=_WRITTEN,
                dynamo=True,
                verbose=False,
            )
    except Exception as error:
        # The exporter wraps whatever the network's own code raises.
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        raise UntraceableModel(
            f"{type(module).__name__} cannot be exported to ONNX for inputs of "
            f"{'x'.join(map(str, input_shape))}: {first_line(cause)}.",
            "Check the input size, and that forward() has no branches on values.",
        ) from error
    assert program is not None
    model = program.model_proto
    if len(model.graph.output) != 1:
        raise UntraceableModel(
            f"{type(module).__name__} has {len(model.graph.output)} outputs.",
            "Wrap it in a module that returns one tensor.",
        )
    _strip(model)
    _write_for_older_readers(model)
    return bytes(model.SerializeToString(deterministic=True))


def check_onnx(
    data: bytes, module: nn.Module, images: Tensor, engine: str = "onnxruntime"
) -> ExportCheck:
    """Compare an exported model, run by an engine, with its module on real images.

    Args:
        images: [N, C, H, W], prepared as for training.

    Raises:
        VerificationFailed: the file is not valid ONNX, the outputs differ by more than
            1e-4 of the largest, or a clear image changes class.
        UsageError: no images.
    """
    try:
        onnx.checker.check_model(data, full_check=True)
    except (
        onnx.checker.ValidationError,
        onnx.shape_inference.InferenceError,
        ValueError,
    ) as error:
        raise VerificationFailed(
            f"The exported file is not valid ONNX: {first_line(error)}.",
            "Export it again.",
        ) from error
    batch = onnx.load_from_string(data).graph.input[0].type.tensor_type.shape.dim[0]
    session = open_engine(engine).load(data)
    return check_session(session, batch.dim_value, module, images)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter: what matters in its logs is in the exception."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _strip(model: onnx.ModelProto) -> None:
    """Remove comments and metadata: the exporter leaves stack traces and paths there."""
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


def _write_for_older_readers(model: onnx.ModelProto) -> None:
    """In `OPSET`, if all operators but means over constant axes are the same there."""
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    means: list[onnx.NodeProto] = []
    others: list[onnx.NodeProto] = []
    for node in graph.node:
        is_mean = node.op_type == "ReduceMean" and len(node.input) == 2
        (means if is_mean and node.input[1] in constants else others).append(node)
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
    old, new = (onnx.defs.get_schema(operator, n) for n in (OPSET, _WRITTEN))
    return bool(old.since_version == new.since_version)
