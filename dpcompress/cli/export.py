"""``dpcompress export``: a network as a file for an inference engine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from dpcompress.cli.files import OUTPUT, Json
from dpcompress.cli.output import emit, print_breakdown
from dpcompress.errors import UsageError

if TYPE_CHECKING:
    from pydantic import Field
    from torch import Tensor, nn

    from dpcompress.settings import (
        DataOptions,
        ModelOptions,
        Options,
        Panel,
        Size,
        Target,
    )

_CHECK_IMAGES = 8
_REAL_IMAGES = 256


def export(
    model: ModelOptions,
    target: Annotated[Target, Options("precision", "batch", panel=Panel.ENGINE)],
    data: Annotated[DataOptions | None, Options(panel="Check on real images too")],
    output: Annotated[
        Path,
        typer.Option("-o", "--output", help="The file to write.", rich_help_panel=OUTPUT),
    ],
    plan: Annotated[
        Path | None,
        typer.Option(
            "--plan",
            metavar="plan.json",
            exists=True,
            dir_okay=False,
            help="Export the merged network of this plan. Without it: the original.",
            show_default=False,
        ),
    ] = None,
    to: Annotated[
        Literal["onnx", "tensorrt", "openvino"], Field(description="Format of the file.")
    ] = "onnx",
    engine: Annotated[
        str,
        typer.Option(
            "--engine",
            help="For --to tensorrt, with its options: tensorrt:workspace_mb=512.",
            rich_help_panel=Panel.ENGINE,
        ),
    ] = "tensorrt",
    json: Json = False,
) -> None:
    """Write a network for an inference engine and check the file against torch.

    onnx goes everywhere; openvino is a pair of files, .xml and .bin; tensorrt is an
    engine for the GPU here, in --precision fp32, tf32 or fp16, and beside it a JSON file
    with versions, accuracy and times.

    The check runs on random images and on those of --data. With --plan, --weights are
    those that merge wrote. Original and merged network take the same path, batch norms
    folded, so that their times can be compared.

    \b
    Examples:
      dpcompress export torchvision:mobilenet_v2 --plan plan.json \\
        --weights merged.safetensors -o merged.onnx --batch 32
      dpcompress export torchvision:mobilenet_v2 --plan plan.json \\
        --weights merged.safetensors --to tensorrt --precision fp16 -o merged.engine
    """
    from dpcompress.exporters import (
        check_onnx,
        export,
        export_openvino,
        export_tensorrt,
    )
    from dpcompress.files import write_bytes

    if to != "tensorrt" and target.precision != "fp32":
        raise UsageError(
            f"An export to {to} is in fp32, not {target.precision}.",
            "Leave out --precision.",
        )
    opened: Any = None
    if to != "onnx":  # before the work, not after it
        opened = replace(target, engine=engine if to == "tensorrt" else to).open()
    network, size = _network(model, plan)
    content = export(network, size, target.batch)
    images = _check_images(model, data, size)
    found: dict[str, Any] = {}
    made: dict[str, Any] = {"batch": target.batch, "module": network, "images": images}
    if to == "tensorrt":
        check, found["latency"] = export_tensorrt(content, output, engine=opened, **made)
    elif to == "openvino":
        check = export_openvino(content, output, engine=opened, **made)
    else:
        check = check_onnx(content, network, images)
        write_bytes(output, content)
    written = (output, output.with_suffix(".bin")) if to == "openvino" else (output,)
    bytes = sum(path.stat().st_size for path in written)
    if json:
        known = {"output": str(output), "bytes": bytes, "check": check.model_dump()}
        emit(known | found)
        return
    print(
        f"{output}: {bytes / 1e6:.1f} MB, differs from torch by at most "
        f"{check.max_error:.1e} ({check.tolerance:.1e} is allowed)"
    )
    if to == "tensorrt":
        print_breakdown({str(output): found["latency"]})


def _network(model: ModelOptions, plan: Path | None) -> tuple[nn.Module, Size]:
    """The original network, or the merged one of a plan, and its input size."""
    from dpcompress.cli.loading import load_plan
    from dpcompress.graph import build
    from dpcompress.models import (
        default_input,
        load_model,
        load_weights,
        require_origin,
    )

    size = model.input or default_input(model.model)
    if plan is None:
        return load_model(model.model, model.weights, model.model_args), size
    decision = load_plan(plan, model)
    if model.weights in (None, "default"):
        raise UsageError(
            "A merged network has no weights of its own.",
            "Give --weights FILE, as merge wrote it.",
        )
    require_origin(str(model.weights), form="merged", plan=decision.digest)
    original = load_model(model.model, None, model.model_args)
    network = build(original, decision)
    load_weights(network, str(model.weights))
    return network, decision.input or size


def _check_images(model: ModelOptions, data: DataOptions | None, size: Size) -> Tensor:
    """Draw random images, and add those of `data` to them."""
    import torch

    from dpcompress.cli.loading import load_images

    generator = torch.Generator().manual_seed(0)
    images = torch.randn(_CHECK_IMAGES, *size, generator=generator)
    if data is None:
        return images
    real = load_images(model, data, size).test.first(_REAL_IMAGES)
    return torch.cat([images, real])
