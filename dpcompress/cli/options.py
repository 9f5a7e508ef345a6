"""Options that several verbs share: one name, one meaning, one help text.

The annotated types are used as parameter types of a verb: ``def inspect(model: Model,
weights: Weights = None, ...)``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from dpcompress.errors import UsageError

if TYPE_CHECKING:
    from dpcompress.blueprint import Limits


class InputShape(NamedTuple):
    """Channels, height and width of one image."""

    channels: int
    height: int
    width: int


class ModelArg(NamedTuple):
    """One keyword argument of a model's constructor."""

    name: str
    value: Any


def parse_input(text: str | InputShape) -> InputShape:
    """'3x224x224' → InputShape(3, 224, 224).

    Raises:
        UsageError: not three positive integers.
    """
    if isinstance(text, InputShape):
        return text
    try:
        shape = InputShape(*map(int, text.lower().split("x")))
    except (TypeError, ValueError):
        shape = InputShape(0, 0, 0)
    if min(shape) < 1:
        raise UsageError(
            f"--input {text} is not CHANNELSxHEIGHTxWIDTH.",
            "Write for example --input 3x224x224.",
        )
    return shape


def parse_model_arg(text: str | ModelArg) -> ModelArg:
    """'width_mult=0.5' → ModelArg('width_mult', 0.5).

    A value that is JSON (numbers, true, false, null, lists) is read as such; Python's
    True, False and None too; anything else is a string.

    Raises:
        UsageError: no '=' or no name.
    """
    if isinstance(text, ModelArg):
        return text
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise UsageError(
            f"--model-args {text} is not NAME=VALUE.",
            "Write for example --model-args width_mult=0.5.",
        )
    spelled = {"True": "true", "False": "false", "None": "null"}.get(value, value)
    try:
        return ModelArg(name, json.loads(spelled))
    except ValueError:
        return ModelArg(name, value)


class Channels(tuple[float, ...]):
    """One number per colour channel."""


def parse_channels(text: str | Channels) -> Channels:
    """'0.485,0.456,0.406' → (0.485, 0.456, 0.406).

    Raises:
        UsageError: not numbers separated by commas.
    """
    if isinstance(text, Channels):
        return text
    try:
        return Channels(float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(
            f"{text} is not a list of numbers.",
            "Write one number per channel, for example 0.485,0.456,0.406.",
        ) from None


def given_options(context: typer.Context) -> list[str]:
    """The options that the command line has, by their long names."""
    found = []
    for parameter in context.command.params:
        source = context.get_parameter_source(str(parameter.name))
        if source is not None and source.name == "COMMANDLINE":
            found.append(max(parameter.opts, key=len))
    return [name for name in found if name.startswith("--")]


Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="torchvision:NAME, timm:NAME, or path.py:factory for a function of your own "
        "that returns the network.",
        show_default=False,
    ),
]
Form = Annotated[
    str,
    typer.Option(
        "--form",
        help="What is trained: the 'linearized' network, to be merged exactly later, or "
        "the 'merged' one, small from the start, whose spans were first fitted to the "
        "original by least squares.",
    ),
]
Weights = Annotated[
    str | None,
    typer.Option(
        "--weights",
        metavar="FILE|default",
        help="Trained weights: a safetensors file, a state dict saved by torch, or "
        "'default' for the library's pretrained ones. Without it: random.",
        show_default=False,
    ),
]
ModelArgs = Annotated[
    list[ModelArg] | None,
    typer.Option(
        "--model-args",
        parser=parse_model_arg,
        metavar="NAME=VALUE",
        help="Argument of the model's constructor, such as width_mult=0.5. Repeatable.",
        show_default=False,
    ),
]
Input = Annotated[
    InputShape | None,
    typer.Option(
        "--input",
        parser=parse_input,
        metavar="CxHxW",
        help="Size of one image. A plan and a merge hold for this size. Without it: the "
        "size that the pretrained weights were made for, else 3x224x224.",
        show_default=False,
    ),
]
RunFolder = Annotated[
    Path,
    typer.Option(
        "-o",
        "--output",
        metavar="RUN",
        help="Folder of the run; made, or gone on with.",
    ),
]
RunData = Annotated[
    str | None,
    typer.Option(
        "--data",
        metavar="DATA",
        help="digits (built in), cifar10:DIR, or a folder with one subfolder per class, "
        "or with train/ and test/ of such.",
    ),
]
Batch = Annotated[
    int,
    typer.Option("--batch", min=1, help="Images per inference, where time is measured."),
]
Data = Annotated[
    str,
    typer.Option(
        "--data",
        metavar="DATA",
        help="digits (built in), cifar10:DIR, or a folder with one subfolder per class.",
    ),
]
CheckData = Annotated[
    str | None,
    typer.Option(
        "--data",
        metavar="DATA",
        help="Check on these real test images too, prepared by the options below: "
        "digits, cifar10:DIR, or a folder with one subfolder per class.",
        show_default=False,
    ),
]
Resize = Annotated[
    int | None,
    typer.Option("--resize", min=1, help="Resize the shorter side to this many pixels."),
]
Crop = Annotated[
    int | None, typer.Option("--crop", min=1, help="Then cut this many pixels square.")
]
Mean = Annotated[
    Channels | None,
    typer.Option(
        "--mean",
        parser=parse_channels,
        metavar="R,G,B",
        help="Subtracted per channel, for pixels in 0..1.",
    ),
]
Std = Annotated[
    Channels | None,
    typer.Option(
        "--std",
        parser=parse_channels,
        metavar="R,G,B",
        help="Divided by per channel, after --mean.",
    ),
]
PlanFile = Annotated[
    Path,
    typer.Option(
        "--plan",
        metavar="plan.json",
        exists=True,
        dir_okay=False,
        help="The plan, as written by solve.",
        show_default=False,
    ),
]
Engine = Annotated[
    str,
    typer.Option(
        "--engine",
        help="Inference engine that is measured: onnxruntime, openvino, torch, tensorrt. "
        "TensorRT has options, after a colon: tensorrt:workspace_mb=512,tactics=internal "
        "(docs/tensorrt.md).",
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(
        "--threads",
        min=1,
        help="Threads of the engine. Without it: all cores.",
        show_default=False,
    ),
]
Device = Annotated[
    str | None,
    typer.Option(
        "--device",
        help="cpu or cuda, for engines that run on both. Without it: the engine's usual "
        "one.",
        show_default=False,
    ),
]
Precision = Annotated[
    str,
    typer.Option(
        "--precision",
        help="Numbers that the engine computes in: fp32; some have others, such as "
        "tensorrt tf32 and fp16.",
    ),
]
MaxGrowth = Annotated[
    float | None,
    typer.Option(
        "--max-growth",
        min=1,
        help="A legal span is a candidate if its merged convolution has at most this "
        "many times its parts' multiply-adds. Default: 8.",
        show_default=False,
    ),
]
MaxWeightMb = Annotated[
    float | None,
    typer.Option(
        "--max-weight-mb",
        min=0,
        help="... and at most this many megabytes of fp32 weights. Default: 64.",
        show_default=False,
    ),
]
Seed = Annotated[int, typer.Option("--seed", help="Seed of everything random.")]
Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON object to standard output.")
]


def candidate_limits(max_growth: float | None, max_weight_mb: float | None) -> Limits:
    """The limits that were asked for, the others as usual."""
    from dpcompress.blueprint import Limits

    asked = {"max_growth": max_growth, "max_weight_mb": max_weight_mb}
    return Limits(**{name: value for name, value in asked.items() if value is not None})
