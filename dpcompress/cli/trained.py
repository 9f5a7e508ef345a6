"""The network and the data that score and finetune start from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from dpcompress.cli.options import Channels, InputShape, ModelArg

if TYPE_CHECKING:
    from torch import nn

    from dpcompress.training import Data


class Preparation(NamedTuple):
    """How pictures become network inputs, as far as options say so."""

    resize: int | None = None
    crop: int | None = None
    mean: Channels | None = None
    std: Channels | None = None


def load_trained(
    model: str,
    weights: str | Path | None,
    model_args: list[ModelArg] | None,
    input: InputShape | None,
    data: str,
    preparation: Preparation,
) -> tuple[nn.Module, Data]:
    """The network, refused if near chance on held-out images, and its data."""
    from dpcompress.models import default_input, load_model
    from dpcompress.training import check_above_chance, evaluate

    network = load_model(model, weights, dict(model_args or ()))
    crop = preparation.crop
    size = input or ((3, crop, crop) if crop else default_input(model))
    images = load_images(model, weights, size, data, preparation)
    check_above_chance(evaluate(network, images.heldout), len(images.classes))
    return network, images


def load_images(
    model: str,
    weights: str | Path | None,
    size: tuple[int, int, int],
    data: str,
    preparation: Preparation,
) -> Data:
    """The data for a network of input `size`.

    What the options leave open is taken from the pretrained weights' own preparation
    where those weights are asked for, else from the data.
    """
    from dpcompress.training import load_data

    filled = fill(preparation, model, weights, size)
    return load_data(data, input_size=size, **filled._asdict())


def fill(
    preparation: Preparation,
    model: str,
    weights: str | Path | None,
    size: tuple[int, int, int],
) -> Preparation:
    """What it leaves open, as the pretrained weights want it where they are used."""
    from dpcompress.models import model_transform

    resize, crop, mean, std = preparation
    own = model_transform(model) if weights == "default" else None
    if own is not None:
        if tuple(size[1:]) == (own.crop, own.crop):
            resize = resize or own.resize
        mean, std = mean or Channels(own.mean), std or Channels(own.std)
    return Preparation(resize, crop, mean, std)
