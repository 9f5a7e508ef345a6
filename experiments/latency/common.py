"""What the experiments with latency tables share: options, and networks that are traced
and exported once."""

import argparse
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from dpcompress.blueprint import Blueprint, keep_everything
from dpcompress.files import write_bytes, write_text
from dpcompress.latency import Store, profile
from dpcompress.runner import Target
from dpcompress.tables import LatencyTable

if TYPE_CHECKING:
    from torch import nn

HERE = Path(__file__).parent


def arguments(about: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="torchvision:mobilenet_v2")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--output", type=Path, default=HERE, help="folder of the results")
    parser.add_argument(
        "--work",
        type=Path,
        default=Path(tempfile.gettempdir()) / "dpcompress-latency",
        help="folder of everything that is too large to keep, and of what was measured",
    )
    return parser


def measured(
    work: Path, blueprint: Blueprint, original: bytes, target: Target
) -> LatencyTable:
    """The latency table; ops that `work` holds times of are not timed again."""
    with Store(work / "measurements.sqlite") as store:
        return profile(blueprint, original=original, target=target, store=store)


def network(
    model: str, size: int, classes: int = 1000, **arguments: object
) -> "tuple[nn.Module, Blueprint]":
    """The network with random weights, and its blueprint."""
    import torch

    from dpcompress.graph import trace
    from dpcompress.models import load_model

    torch.manual_seed(0)
    made = load_model(model, None, {"num_classes": classes, **arguments})
    return made, trace(made, (3, size, size))


def prepared(
    work: Path,
    model: str,
    size: int,
    batch: int,
    classes: int = 1000,
    **arguments: object,
) -> tuple[Blueprint, bytes]:
    """The blueprint, and the original as it is measured: norms folded, exported like
    every merged network. Made once, because that takes longer than some measurements."""
    words = [model.partition(":")[2], *map(str, arguments.values()), size, classes]
    name = "_".join(map(str, words))
    about, onnx = work / f"{name}.json", work / f"{name}_batch{batch}.onnx"
    if not onnx.exists():
        from dpcompress.pipeline.whole_networks import merged_onnx

        made, blueprint = network(model, size, classes, **arguments)
        write_text(about, blueprint.to_json())
        write_bytes(onnx, merged_onnx(made, keep_everything(blueprint), batch))
    return Blueprint.from_json(about.read_bytes(), about), onnx.read_bytes()


def write(path: Path, result: object) -> None:
    """Write and print `result` as JSON."""
    write_text(path, json.dumps(result, indent=1) + "\n")
    print(path, json.dumps(result))
