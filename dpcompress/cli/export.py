"""``dpcompress export``: a network as a file for an inference engine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from dpcompress.cli.options import (
    Batch,
    CheckData,
    Crop,
    Input,
    Json,
    Mean,
    Model,
    ModelArgs,
    Precision,
    Resize,
    Std,
    Weights,
)
from dpcompress.cli.output import emit, print_breakdown
from dpcompress.errors import UsageError

_CHECK_IMAGES = 8
_REAL_IMAGES = 256


def export(
    model: Model,
    output: Annotated[Path, typer.Option("-o", "--output", help="The file to write.")],
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
    weights: Weights = None,
    to: Annotated[
        str, typer.Option("--to", help="Format: onnx, tensorrt or openvino.")
    ] = "onnx",
    precision: Precision = "fp32",
    engine: Annotated[
        str,
        typer.Option(
            "--engine",
            help="For --to tensorrt, with its options: tensorrt:workspace_mb=512.",
        ),
    ] = "tensorrt",
    model_args: ModelArgs = None,
    input: Input = None,
    batch: Batch = 1,
    data: CheckData = None,
    resize: Resize = None,
    crop: Crop = None,
    mean: Mean = None,
    std: Std = None,
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
    import torch

    from dpcompress.blueprint import Plan
    from dpcompress.cli.trained import Preparation, load_images
    from dpcompress.exporters import (
        check_onnx,
        export,
        export_openvino,
        export_tensorrt,
    )
    from dpcompress.files import write_bytes
    from dpcompress.graph import build
    from dpcompress.models import (
        default_input,
        load_model,
        load_weights,
        require_origin,
    )
    from dpcompress.runner import Target

    if to not in ("onnx", "tensorrt", "openvino"):
        raise UsageError(
            f"There is no export to {to}.", "Choose --to onnx, tensorrt or openvino."
        )
    if to != "tensorrt" and precision != "fp32":
        raise UsageError(
            f"An export to {to} is in fp32, not {precision}.", "Leave out --precision."
        )
    opened: Any = None
    if to != "onnx":  # before the work, not after it
        name = engine if to == "tensorrt" else to
        opened = Target(name, precision=precision).open()
    arguments = dict(model_args or ())
    network: torch.nn.Module
    if plan is None:
        network = load_model(model, weights, arguments)
        shape: tuple[int, int, int] = input or default_input(model)
    else:
        decision = Plan.from_json(plan.read_bytes(), plan)
        shape = decision.input or input or default_input(model)
        if input is not None and input != shape:
            raise UsageError(
                f"{plan} is for inputs of {'x'.join(map(str, shape))}.",
                "Leave out --input, or solve again for the other size.",
            )
        if weights in (None, "default"):
            raise UsageError(
                "A merged network has no weights of its own.",
                "Give --weights FILE, as merge wrote it.",
            )
        require_origin(str(weights), form="merged", plan=decision.digest)
        network = build(load_model(model, None, arguments), decision)
        load_weights(network, str(weights))
    content = export(network, shape, batch)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(_CHECK_IMAGES, *shape, generator=generator)
    if data is not None:
        preparation = Preparation(resize, crop, mean, std)
        real = load_images(model, weights, shape, data, preparation)
        images = torch.cat([images, real.test.first(_REAL_IMAGES)])
    found: dict[str, Any] = {}
    made: dict[str, Any] = {"batch": batch, "module": network, "images": images}
    if to == "tensorrt":
        check, found["latency"] = export_tensorrt(content, output, engine=opened, **made)
    elif to == "openvino":
        check = export_openvino(content, output, engine=opened, **made)
    else:
        check = check_onnx(content, network, images)
        write_bytes(output, content)
    written = (output, output.with_suffix(".bin")) if to == "openvino" else (output,)
    size = sum(path.stat().st_size for path in written)
    if json:
        emit({"output": str(output), "bytes": size, "check": check.model_dump(), **found})
        return
    print(
        f"{output}: {size / 1e6:.1f} MB, differs from torch by at most "
        f"{check.max_error:.1e} ({check.tolerance:.1e} is allowed)"
    )
    if to == "tensorrt":
        print_breakdown({str(output): found["latency"]})
