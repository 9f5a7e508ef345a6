"""The comparison of an exported network, run by its engine, with its module."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dpcompress.errors import UsageError, VerificationFailed
from dpcompress.runner import Session

TOLERANCE = {"fp32": 1e-4, "tf32": 1e-2, "fp16": 3e-2}
"""Of the largest output: how far an engine of this precision may be from torch. tf32 and
fp16 keep 11 bits of a number's 24, and errors add up over the layers."""


_AT_A_TIME = 64
"""Images: a large network's activations for a thousand are tens of gigabytes."""


@dataclass(frozen=True)
class ExportCheck:
    """How far an exported file is from its module, over `images` images.

    `tolerance` is absolute. `clear` images have their two best
    outputs further apart than it; on `same_top1` of them both name the same class.
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
    """Compare what a session makes of real images with what its module does.

    Args:
        session: of one input `input` and one output `output`.
        batch: images that it takes at a time.
        images: [N, C, H, W], prepared as for training.

    Raises:
        VerificationFailed: the outputs differ by more than `TOLERANCE` of the largest,
            or a clear image changes class.
        UsageError: no images.
    """
    if len(images) == 0:
        raise UsageError("There are no images to check the export on.", "Give some.")
    found = _outputs(session, images, batch)
    training = [part for part in module.modules() if part.training]
    try:
        with torch.no_grad():
            parts = images.split(_AT_A_TIME)
            outputs = [module.eval()(part).double().cpu().numpy() for part in parts]
            wanted = np.concatenate(outputs)
    finally:
        for part in training:
            part.training = True
    check = _compare(found, wanted, TOLERANCE[precision])
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


def _compare(
    found: np.ndarray[Any, Any], wanted: np.ndarray[Any, Any], allowed: float
) -> ExportCheck:
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
