"""The comparison of an exported network, run by its engine, with its module."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dpcompress.blueprint.data import Frozen
from dpcompress.errors import UsageError, VerificationFailed
from dpcompress.runner import Session

# How far an engine of a precision may be from torch, as a share of the largest output.
# tf32 and fp16 keep 11 bits of a number's 24, and errors add up over the layers.
TOLERANCE = {"fp32": 1e-4, "tf32": 1e-2, "fp16": 3e-2}

_BATCH = 64  # 1,000 images at once would need tens of gigabytes

Array = NDArray[np.float64]


class ExportCheck(Frozen):
    """The comparison of an exported file with its module.

    images: how many were compared.
    max_error: largest |Δ| of an output.
    max_output: largest |output| of the module.
    tolerance: largest |Δ| that is allowed.
    clear: images whose two best outputs are further apart than the tolerance.
    same_top1: clear images for which both name the same class.
    """

    images: int
    max_error: float
    max_output: float
    tolerance: float
    clear: int
    same_top1: int


def check_session(
    session: Session,
    batch: int,
    module: nn.Module,
    images: Tensor,
    precision: str = "fp32",
) -> ExportCheck:
    """Compare the outputs of a session with those of its module on real images.

    Args:
        session: has one input, `input`, and one output, `output`.
        batch: images that the session takes at a time.
        module: the network that was exported; its training mode is left as it was.
        images: (N, C, H, W), prepared as for training.
        precision: the one that the engine computes in.

    Raises:
        VerificationFailed: the outputs differ by more than `TOLERANCE` of the largest,
            or a clear image (see `ExportCheck`) changes class.
        UsageError: no images.
    """
    if len(images) == 0:
        raise UsageError("There are no images to check the export on.", "Give some.")
    found, wanted = _session_outputs(session, images, batch), _outputs(module, images)
    check = _compare(found, wanted, TOLERANCE[precision])
    if math.isnan(check.max_error) or check.max_error > check.tolerance:
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


def _outputs(module: nn.Module, images: Tensor) -> Array:
    """Run the module on images, in eval mode."""
    training = [part for part in module.modules() if part.training]
    module.eval()
    try:
        with torch.no_grad():
            parts = images.split(_BATCH)
            return np.concatenate([module(part).double().cpu().numpy() for part in parts])
    finally:
        for part in training:
            part.training = True


def _session_outputs(session: Session, images: Tensor, batch: int) -> Array:
    """Run a session on images; the last batch is filled with its last image."""
    results = []
    for start in range(0, len(images), batch):
        part = images[start : start + batch].numpy()
        fill = np.repeat(part[-1:], batch - len(part), axis=0)
        outputs = session.infer({"input": np.concatenate([part, fill])})
        results.append(outputs["output"][: len(part)])
    return np.concatenate(results).astype(np.float64)


def _compare(found: Array, wanted: Array, allowed: float) -> ExportCheck:
    """Compare outputs, (N, …); `allowed` is the error as a share of the largest."""
    largest = float(np.abs(wanted).max())
    tolerance = allowed * largest
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
