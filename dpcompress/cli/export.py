"""``dpcompress export``: a network as a file for an inference engine."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

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
    Resize,
    Std,
    Weights,
)
from dpcompress.cli.output import emit
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
    to: Annotated[str, typer.Option("--to", help="Format: onnx.")] = "onnx",
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
    """Write a network as ONNX and check the file against torch.

    The check runs on random images and on those of --data. With --plan, --weights are
    those that merge wrote. Original and merged network take the same path, batch norms
    folded, so that their times can be compared.

    \b
    Example:
      dpcompress export torchvision:mobilenet_v2 --plan plan.json \\
        --weights merged.safetensors -o merged.onnx --batch 32
    """
    import torch

    from dpcompress.blueprint import Plan
    from dpcompress.cli.trained import Preparation, load_images
    from dpcompress.exporters import check_onnx, export_onnx
    from dpcompress.files import write_bytes
    from dpcompress.graph import linearize
    from dpcompress.graph.merge import merge_unchecked
    from dpcompress.models import default_input, load_model, load_weights

    if to != "onnx":
        raise UsageError(f"There is no export to {to}.", "Choose --to onnx.")
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
        network = merge_unchecked(linearize(load_model(model, None, arguments), decision))
        network = network.float()
        load_weights(network, str(weights))
    content = export_onnx(network, shape, batch)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(_CHECK_IMAGES, *shape, generator=generator)
    if data is not None:
        preparation = Preparation(resize, crop, mean, std)
        real = load_images(model, weights, shape, data, preparation)
        images = torch.cat([images, real.test.first(_REAL_IMAGES)])
    check = check_onnx(content, network, images)
    write_bytes(output, content)
    if json:
        emit({"output": str(output), "bytes": len(content), "check": asdict(check)})
    else:
        print(
            f"{output}: {len(content) / 1e6:.1f} MB, differs from torch by at most "
            f"{check.max_error:.1e} ({check.tolerance:.1e} is allowed)"
        )
