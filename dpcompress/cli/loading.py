"""The network, the plan and the images that a verb starts from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from dpcompress.errors import UsageError

if TYPE_CHECKING:
    from torch import nn

    from dpcompress.blueprint import Plan
    from dpcompress.settings import DataOptions, ModelOptions, Size
    from dpcompress.training import Data

D = TypeVar("D", bound="DataOptions")


def load_trained(
    model: ModelOptions, data: DataOptions, size: Size | None = None
) -> tuple[nn.Module, Data]:
    """Load a trained network and its data.

    Args:
        size: of the network's input; None takes --input, --crop or the model's own.

    Raises:
        BadInput: the network does no better than chance on held-out images.
    """
    from dpcompress.models import default_input, load_model
    from dpcompress.training import check_above_chance, evaluate

    network = load_model(model.model, model.weights, model.model_args)
    cropped = (3, data.crop, data.crop) if data.crop else None
    size = size or model.input or cropped or default_input(model.model)
    images = load_images(model, data, size)
    check_above_chance(evaluate(network, images.heldout), len(images.classes))
    return network, images


def load_images(model: ModelOptions, data: DataOptions, size: Size) -> Data:
    """The data for a network of input `size`, prepared as the network wants it."""
    from dpcompress.training import load_data

    known = prepared(model, data, size)
    return load_data(
        known.data,
        input_size=size,
        resize=known.resize,
        crop=known.crop,
        mean=known.mean,
        std=known.std,
    )


def prepared(model: ModelOptions, data: D, size: Size) -> D:
    """Fill the open options of `data` from the library's pretrained weights, if the model
    uses those."""
    from dpcompress.models import model_transform
    from dpcompress.settings import changed

    own = model_transform(model.model) if model.weights == "default" else None
    if own is None:
        return data
    changes: dict[str, Any] = {"mean": data.mean or own.mean, "std": data.std or own.std}
    if tuple(size[1:]) == (own.crop, own.crop):
        changes["resize"] = data.resize or own.resize
    return changed(data, **changes)


def load_plan(path: Path, model: ModelOptions) -> Plan:
    """The plan in a file.

    Raises:
        BadInput: the file is no plan.
        UsageError: --input is another size than that of the plan.
    """
    from dpcompress.blueprint import Plan

    plan = Plan.from_json(path.read_bytes(), path)
    if model.input is not None and plan.input not in (None, model.input):
        raise UsageError(
            f"{path} is for inputs of {'x'.join(map(str, plan.input or ()))}.",
            "Leave out --input, or solve again for the other size.",
        )
    return plan
