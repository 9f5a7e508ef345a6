"""The network that a command works on, and its images."""

from __future__ import annotations

import json
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, JsonValue

from dpcompress.blueprint.data import Frozen
from dpcompress.settings.options import Panel, Shown


def parse_size(value: Any) -> Any:
    """Read "3x224x224" as (3, 224, 224); leave what is no text as it is.

    Raises:
        ValueError: not three positive integers.
    """
    if not isinstance(value, str):
        return value
    try:
        channels, height, width = map(int, value.lower().split("x"))
    except ValueError:
        channels = height = width = 0
    if min(channels, height, width) < 1:
        raise ValueError("is not CHANNELSxHEIGHTxWIDTH, such as 3x224x224")
    return channels, height, width


def parse_channels(value: Any) -> Any:
    """Read "0.485,0.456,0.406" as a tuple of numbers; leave what is no text as it is.

    Raises:
        ValueError: not numbers with commas between them.
    """
    if not isinstance(value, str):
        return value
    try:
        return tuple(float(part) for part in value.split(","))
    except ValueError:
        raise ValueError("is not one number per channel, such as 0.5,0.5,0.5") from None


def parse_model_args(value: Any) -> Any:
    """Read ["width_mult=0.5"] as {"width_mult": 0.5}; leave what is no list as it is.

    A value that is JSON (numbers, true, false, null, lists) is read as such; Python's
    True, False and None too; anything else is a string.

    Raises:
        ValueError: no "=" or no name.
    """
    if not isinstance(value, list):
        return value
    found = {}
    for text in value:
        name, equals, given = text.partition("=")
        if not equals or not name.isidentifier():
            raise ValueError("is not NAME=VALUE, such as width_mult=0.5")
        spelled = {"True": "true", "False": "false", "None": "null"}.get(given, given)
        try:
            found[name] = json.loads(spelled)
        except ValueError:
            found[name] = given
    return found


Side = Annotated[int, Field(ge=1)]
# Channels, height and width of one image.
Size = Annotated[tuple[Side, Side, Side], BeforeValidator(parse_size)]
# One number per colour channel.
Channels = Annotated[tuple[float, ...], BeforeValidator(parse_channels)]
# Keyword arguments of a model's constructor.
ModelArgs = Annotated[dict[str, JsonValue], BeforeValidator(parse_model_args)]

INPUT_FIELD = Field(
    description="Size of one image. A plan and a merge hold for this size. Without it: "
    "the size that the pretrained weights were made for, else 3x224x224."
)

MODEL_ARGS_FIELD = Field(
    description="Argument of the model's constructor, such as width_mult=0.5. Repeatable."
)


class ModelOptions(Frozen):
    """A network and where its weights come from."""

    model: Annotated[
        str,
        Shown("MODEL", argument=True),
        Field(
            description="torchvision:NAME, timm:NAME, or path.py:factory for a function "
            "of your own that returns the network."
        ),
    ]
    weights: Annotated[
        str | None,
        Shown("FILE|default", Panel.MODEL),
        Field(
            description="Trained weights: a safetensors file, a state dict saved by "
            "torch, or 'default' for the library's pretrained ones. Without it: random."
        ),
    ] = None
    model_args: Annotated[
        ModelArgs, Shown("NAME=VALUE", Panel.MODEL), MODEL_ARGS_FIELD
    ] = {}
    input: Annotated[Size | None, Shown("CxHxW", Panel.MODEL), INPUT_FIELD] = None


class DataOptions(Frozen):
    """The images, and how they become inputs of the network.

    What is None is taken from the pretrained weights' own preparation where those
    weights are asked for, else from the data.
    """

    data: Annotated[
        str,
        Shown("DATA", Panel.MODEL),
        Field(
            description="Images: digits (built in), cifar10:DIR, or a folder with one "
            "subfolder per class, or with train/ and test/ of such."
        ),
    ]
    resize: Annotated[
        Side | None,
        Shown(panel=Panel.MODEL),
        Field(
            description="Resize the shorter side to this many pixels. Without it: as "
            "the pretrained weights want it, else to the input's size."
        ),
    ] = None
    crop: Annotated[
        Side | None,
        Shown(panel=Panel.MODEL),
        Field(
            description="Then cut this many pixels square from the middle. Without it: "
            "as the pretrained weights want it, else the input's size."
        ),
    ] = None
    mean: Annotated[
        Channels | None,
        Shown("R,G,B", Panel.MODEL),
        Field(
            description="Subtracted per channel, for pixels in 0..1. Without it: that "
            "of the pretrained weights, else of the data."
        ),
    ] = None
    std: Annotated[
        Channels | None,
        Shown("R,G,B", Panel.MODEL),
        Field(
            description="Divided by per channel, after --mean. Without it: that of the "
            "pretrained weights, else of the data."
        ),
    ] = None
