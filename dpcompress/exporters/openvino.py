"""Export to OpenVINO IR: the graph (.xml) and, beside it, its weights (.bin)."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from torch import Tensor, nn

from dpcompress.errors import UsageError
from dpcompress.exporters.check import ExportCheck, check_session
from dpcompress.files import write_bytes
from dpcompress.runner.openvino import OpenVino


def export_openvino(
    onnx: bytes,
    path: str | os.PathLike[str],
    *,
    engine: OpenVino,
    batch: int,
    module: nn.Module,
    images: Tensor,
) -> ExportCheck:
    """Write PATH.xml and PATH.bin in fp32, once they agree with torch.

    Args:
        onnx: what `export` made of `module` at this batch size.
        path: ends with .xml.
        engine: as `Target.open` starts it.
        images: to compare on, (N, C, H, W).

    Raises:
        VerificationFailed: the files, read back, do not give torch's outputs.
        UsageError: another suffix.
    """
    path = Path(path)
    if path.suffix != ".xml":
        raise UsageError(
            f"{path} is not the name of an OpenVINO file.", "Let it end with .xml."
        )
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "model.xml"
        engine.save(onnx, str(made))
        check = check_session(engine.load_file(str(made)), batch, module, images)
        path.unlink(missing_ok=True)  # a graph must never meet another one's weights
        for suffix in (".bin", ".xml"):
            write_bytes(path.with_suffix(suffix), made.with_suffix(suffix).read_bytes())
    return check
