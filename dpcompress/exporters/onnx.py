"""ONNX: export of a torch module, and the comparison of the file with the module."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from dpcompress.errors import UntraceableModel, UsageError, VerificationFailed
from dpcompress.runner import Session, open_engine

OPSET = 18
TOLERANCE = 1e-4
"""Of the largest output: how far an engine may be from torch."""


@dataclass(frozen=True)
class ExportCheck:
    """How far an exported file is from its module, over `images` images.

    `tolerance` is absolute: 1e-4 of `max_output`. `clear` images have their two best
    outputs further apart than it; on `same_top1` of them both name the same class.
    """

    images: int
    max_error: float
    max_output: float
    tolerance: float
    clear: int
    same_top1: int


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
    if len(images) == 0:
        raise UsageError("There are no images to check the export on.", "Give some.")
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
    found = _outputs(open_engine(engine).load(data), images, batch.dim_value)
    training = [part for part in module.modules() if part.training]
    try:
        with torch.no_grad():
            wanted = module.eval()(images).double().cpu().numpy()
    finally:
        for part in training:
            part.training = True
    check = _compare(found, wanted)
    if not check.max_error <= check.tolerance:  # not <=: NaN fails too
        raise VerificationFailed(
            f"The exported network differs from torch by {check.max_error:.2g}; "
            f"{check.tolerance:.2g} is allowed.",
            "Report it with the model's name; do not use the file.",
        )
    if check.same_top1 < check.clear:
        raise VerificationFailed(
            f"The exported network names another class on "
            f"{check.clear - check.same_top1} of {check.clear} clear images.",
            "Report it with the model's name; do not use the file.",
        )
    return check


def _outputs(session: Session, images: Tensor, batch: int) -> np.ndarray[Any, Any]:
    results = []
    for start in range(0, len(images), batch):
        part = images[start : start + batch].numpy()
        fill = np.repeat(part[-1:], batch - len(part), axis=0)
        outputs = session.infer({"input": np.concatenate([part, fill])})
        results.append(outputs["output"][: len(part)])
    return np.concatenate(results).astype(np.float64)


def _compare(found: np.ndarray[Any, Any], wanted: np.ndarray[Any, Any]) -> ExportCheck:
    largest = float(np.abs(wanted).max())
    tolerance = TOLERANCE * largest
    error = float(np.abs(found - wanted).max())
    flat_found, flat = found.reshape(len(found), -1), wanted.reshape(len(wanted), -1)
    best = np.sort(flat, axis=1)[:, -2:]
    clear = best[:, -1] - best[:, 0] > tolerance
    same = flat_found.argmax(axis=1) == flat.argmax(axis=1)
    return ExportCheck(
        images=len(wanted),
        max_error=error,
        max_output=largest,
        tolerance=tolerance,
        clear=int(clear.sum()),
        same_top1=int((clear & same).sum()),
    )


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
