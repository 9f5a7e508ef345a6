"""Weights files: safetensors and state dicts of torch in, safetensors out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, load, nn

from dpcompress.errors import BadInput, first_line
from dpcompress.files import canonical_json, replacing
from dpcompress.models.origin import Origin, weights_file


def load_weights(model: nn.Module, path: str | Path) -> None:
    """Load a file of weights into a network; every entry must fit.

    See `read_state_dict` for the formats, `require_origin` for the plan of a file.

    Raises:
        BadInput: the file cannot be read, or names or shapes differ from the model's.
    """
    found = _unwrap(read_state_dict(path))
    wanted = model.state_dict()
    for name in (n for n in wanted if n in found):
        have, want = tuple(found[name].shape), tuple(wanted[name].shape)
        if have != want:
            remedy = "Give the weights of this very architecture."
            if have and want and have[1:] == want[1:]:
                classes = f"--model-args num_classes={have[0]}"
                remedy = f"If it has {have[0]} classes, say {classes}."
            raise BadInput(
                f"{path} does not fit the network: {name} is {_size(have)} in the file "
                f"and {_size(want)} in the network.",
                remedy,
            )
    # Weights from before torch counted batches lack the counters; they are not needed.
    missing = [
        name
        for name in wanted
        if name not in found and not name.endswith("num_batches_tracked")
    ]
    extra = [name for name in found if name not in wanted]
    for names, what in ((missing, "lacks"), (extra, "has an unknown")):
        if names:
            more = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
            raise BadInput(
                f"{path} does not fit the network: it {what} {names[0]}{more}.",
                "Give the weights of this very architecture.",
            )
    model.load_state_dict({**wanted, **found})


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """Read a safetensors file, or a state dict saved by torch, to the CPU.

    Raises:
        BadInput: no such file, not a file of tensors, or a truncated one.
    """
    path = weights_file(path)
    try:
        if path.suffix == ".safetensors":
            content: Any = load_file(path)
        else:
            content = load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise BadInput(
            f"{path} holds something other than tensors.",
            "Save model.state_dict() alone.",
        ) from error
    except Exception as error:
        # torch.load has no error of its own: zip, EOF, value and runtime errors.
        raise BadInput(
            f"{path} cannot be read as weights: {first_line(error)}.",
            "Give a safetensors file or a state dict written by torch.save.",
        ) from error
    for key in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not all(
        isinstance(value, Tensor) for value in content.values()
    ):
        raise BadInput(
            f"{path} holds something other than a state dict.",
            "Save model.state_dict() alone.",
        )
    return dict(content)


def save_weights(
    path: str | Path,
    state_dict: Mapping[str, Tensor],
    origin: Origin | None = None,
    **facts: Any,
) -> None:
    """Write a state dict as safetensors, atomically; equal content gives equal bytes.

    The origin and the facts go into one entry of the file's metadata, as JSON, because
    safetensors writes several entries in an order that changes from call to call.

    Args:
        origin: what the weights belong to; see `require_origin`.
        facts: whatever else readers should know, as JSON values.

    Raises:
        CannotWrite: the folder cannot be written or the disk is full.
    """
    tensors = {
        name: value.detach().cpu().contiguous().clone()
        for name, value in state_dict.items()
    }
    if origin is not None:
        facts["origin"] = origin.model_dump()
    with replacing(path) as temporary:
        try:
            save_file(tensors, temporary, {"dpcompress": canonical_json(facts)})
        except SafetensorError as error:
            raise OSError(first_line(error)) from error


def _unwrap(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Remove the prefix that torch's DataParallel puts before every name."""
    if state and all(name.startswith("module.") for name in state):
        return {name.removeprefix("module."): value for name, value in state.items()}
    return state


def _size(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "a single number"
