"""The models of torchvision and timm, and the image preparation of their weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import floor
from types import ModuleType
from typing import Any

from torch import nn

from dpcompress.errors import BadInput, MissingPackage, UsageError, first_line
from dpcompress.models.spec import split_spec, unknown_model

Arguments = dict[str, Any]


@dataclass(frozen=True)
class ModelTransform:
    """The image preparation that a model's pretrained weights are evaluated with.

    The shorter side is resized to `resize` pixels, a square of `crop` is cut from the
    middle, and pixels in 0..1 are normalised per channel.
    """

    resize: int
    crop: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


def model_transform(spec: str) -> ModelTransform | None:
    """Return the image preparation of the model's default weights; None without such.

    Raises:
        UsageError: an unknown model.
        MissingPackage: timm is asked for but not installed.
    """
    kind, name = split_spec(spec)
    if kind == "torchvision":
        from torchvision.models import get_model_weights

        _torchvision_name(name)
        default = next(iter(get_model_weights(name)), None)
        if default is None:
            return None
        own = get_model_weights(name).DEFAULT.transforms()  # type: ignore[attr-defined]
        return ModelTransform(
            own.resize_size[0], own.crop_size[0], tuple(own.mean), tuple(own.std)
        )
    if kind == "timm":
        config = _timm(name).get_pretrained_cfg(name)
        if config is None or not config.has_weights:
            return None
        crop = config.input_size[-1]
        resize = floor(crop / config.crop_pct)
        return ModelTransform(resize, crop, tuple(config.mean), tuple(config.std))
    return None


def default_input(spec: str) -> tuple[int, int, int]:
    """Return the (C, H, W) of the model's pretrained weights, else (3, 224, 224)."""
    own = model_transform(spec)
    return (3, own.crop, own.crop) if own else (3, 224, 224)


def from_torchvision(name: str, arguments: Arguments, pretrained: bool) -> nn.Module:
    """Build a model of torchvision, with its default weights or random ones."""
    from torchvision.models import get_model

    _torchvision_name(name)
    weights = "DEFAULT" if pretrained else None
    with _construction(f"torchvision:{name}", pretrained):
        return get_model(name, weights=weights, progress=False, **arguments)


def _torchvision_name(name: str) -> None:
    from torchvision import models

    known = models.list_models(module=models)
    if name not in known:
        raise unknown_model(f"torchvision:{name}", name, known)


def from_timm(name: str, arguments: Arguments, pretrained: bool) -> nn.Module:
    """Build a model of timm, with its default weights or random ones."""
    timm = _timm(name)
    classes = arguments.get("num_classes")
    if pretrained and classes not in (None, timm.get_pretrained_cfg(name).num_classes):
        # timm would leave the classifier random without a word.
        raise UsageError(
            f"The pretrained weights of timm:{name} are not for {classes} classes.",
            "Leave out num_classes, or give --weights FILE.",
        )
    with _construction(f"timm:{name}", pretrained):
        model: nn.Module = timm.create_model(name, pretrained=pretrained, **arguments)
        return model


def _timm(name: str) -> ModuleType:
    """Import timm, which must know the model `name`."""
    try:
        import timm
    except ImportError as error:
        raise MissingPackage(
            f"timm:{name} needs the package timm, which is not installed.",
            "Install it with: pip install 'dpcompress[timm]'",
        ) from error
    if not timm.is_model(name):
        raise unknown_model(f"timm:{name}", name, timm.list_models())
    module: ModuleType = timm
    return module


@contextmanager
def _construction(spec: str, pretrained: bool) -> Iterator[None]:
    """Turn a library's refusal to build or to download into one sentence."""
    try:
        yield
    except (TypeError, ValueError, AssertionError) as error:
        raise UsageError(
            f"{spec} cannot be built: {first_line(error)}.", "See --model-args."
        ) from error
    except Exception as error:
        # Download errors: urllib's for torchvision, the hub's and its client's for timm.
        if not pretrained:
            raise
        raise BadInput(
            f"The pretrained weights of {spec} cannot be had: {first_line(error)}.",
            "Connect to the internet once, or give --weights FILE.",
        ) from error
