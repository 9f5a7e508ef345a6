"""Export of a torch module to ONNX, and the comparison of the file with the module."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from dpcompress.errors import UntraceableModel, VerificationFailed, first_line
from dpcompress.exporters.check import ExportCheck, check_session
from dpcompress.onnxio.model import fault, input_shapes, parse
from dpcompress.onnxio.portable import EXPORTED_OPSET, portable
from dpcompress.runner import Target


def export(module: nn.Module, input_shape: tuple[int, int, int], batch: int = 1) -> bytes:
    """Export `module` in eval mode as an ONNX model of one input and one output.

    The model has opset 17, or 18 where an operator is a newer one. Its batch size is
    fixed, and batch norms are folded into their convolutions. The same module gives the
    same bytes: nothing of the machine is left in the file. The module is not changed.

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
                opset_version=EXPORTED_OPSET,
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
    return portable(model)


def check_onnx(
    data: bytes, module: nn.Module, images: Tensor, engine: str = "onnxruntime"
) -> ExportCheck:
    """Compare an exported model, run by an engine, with its module on real images.

    Args:
        images: (N, C, H, W), prepared as for training.

    Raises:
        VerificationFailed: the file is not valid ONNX, the outputs differ by more than
            1e-4 of the largest, or a clear image (see `ExportCheck`) changes class.
        UsageError: no images.
    """
    wrong = fault(data)
    if wrong is not None:
        raise VerificationFailed(
            f"The exported file is not valid ONNX: {wrong}.", "Export it again."
        )
    batch = input_shapes(parse(data))["input"][0]
    return check_session(Target(engine).open().load(data), batch, module, images)


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
