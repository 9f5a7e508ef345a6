"""Export to a TensorRT engine file, with a description of it in a file beside it."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from dpcompress.exporters.check import ExportCheck, check_session
from dpcompress.files import digest, write_bytes, write_text
from dpcompress.onnxio.precision import in_precision
from dpcompress.runner.tensorrt.engine import TensorRt
from dpcompress.version import __version__


def sidecar(path: str | os.PathLike[str]) -> Path:
    """Return the path of the JSON file that describes an engine file."""
    return Path(f"{os.fspath(path)}.json")


def export_tensorrt(
    onnx: bytes,
    path: str | os.PathLike[str],
    *,
    engine: TensorRt,
    batch: int,
    module: nn.Module,
    images: Tensor,
) -> tuple[ExportCheck, dict[str, float]]:
    """Build an engine for the GPU here, and write it once it agrees with torch.

    Beside PATH goes PATH.json: the identity of the engine (TensorRT, GPU, precision and
    so on), inputs and outputs, layers by precision, the comparison with torch, its times.

    Args:
        onnx: what `export` made of `module` at this batch size, in fp32.
        engine: as `Target.open` starts it, with its precision and options.
        images: to compare on, (N, C, H, W).

    Returns:
        The comparison, and the times of `TrtSession.breakdown`.

    Raises:
        EngineUnavailable: TensorRT built other numbers than those asked for, or there is
            not enough memory.
        BadInput: TensorRT rejects the network.
        VerificationFailed: the engine's outputs are too far from torch's.
    """
    plan = engine.build(in_precision(onnx, engine.precision))
    session = engine.start(plan)
    check = check_session(session, batch, module, images, engine.precision)
    times = session.breakdown()
    about: dict[str, Any] = {
        "format": "dpcompress engine 1",
        "dpcompress": __version__,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "digest": digest(plan),
        "engine": engine.identity,
        "notes": engine.notes,
        "inputs": session.inputs,
        "outputs": session.outputs,
        "layers": session.layers,
        "check": check.model_dump(),
        "latency": times,
    }
    sidecar(path).unlink(missing_ok=True)  # never beside an engine that it is not about
    write_bytes(path, plan)
    write_text(sidecar(path), json.dumps(about, indent=1) + "\n")
    return check, times
