"""The network of these experiments and what they share on the command line."""

import argparse
import json
import tempfile
from pathlib import Path

import torch
from torch import nn

from dpcompress.blueprint import Blueprint, keep_everything
from dpcompress.files import write_text
from dpcompress.graph import trace
from dpcompress.models import load_model
from dpcompress.pipeline.fidelity import merged_onnx

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
        help="folder of everything that is too large to keep",
    )
    return parser


def network(model: str, size: int, classes: int = 1000) -> tuple[nn.Module, Blueprint]:
    torch.manual_seed(0)
    made = load_model(model, None, {"num_classes": classes})
    return made, trace(made, (3, size, size))


def original(made: nn.Module, blueprint: Blueprint, batch: int) -> bytes:
    """As it is measured: norms folded, exported like every merged network."""
    return merged_onnx(made, keep_everything(blueprint), batch)


def write(path: Path, result: object) -> None:
    write_text(path, json.dumps(result, indent=1) + "\n")
    print(path, json.dumps(result))
