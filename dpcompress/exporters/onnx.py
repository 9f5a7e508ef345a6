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

from dpcompress.errors import UntraceableModel, VerificationFailed
from dpcompress.exporters.check import ExportCheck, check_session
from dpcompress.runner import open_engine

OPSET = 18


def export_onnx(
    module: nn.Module, input_shape: tuple[int, int, int], batch: int = 1
) -> bytes:
    """`module` in eval mode as an ONNX model (opset 18) of one input and one output.

    The batch size is fixed, and batch norms are folded into their convolutions. The
    same module gives the same bytes: nothing of the machine is left in the file. The
    module itself is not changed.

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
                opset_version=OPSET,
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
            f"{'x'.join(map(str, input_shape))}: {_first_line(cause)}.",
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
            f"The exported file is not valid ONNX: {_first_line(error)}.",
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


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
