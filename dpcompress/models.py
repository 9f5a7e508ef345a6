"""Networks by name, with their weights: torchvision, timm, or a function of your own."""

from __future__ import annotations

import difflib
import importlib.util
import inspect
import json
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import floor
from pathlib import Path
from pickle import UnpicklingError
from types import ModuleType
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, load, nn

from dpcompress.errors import BadInput, EngineUnavailable, UsageError
from dpcompress.files import canonical_json, replacing

_Arguments = dict[str, Any]


@dataclass(frozen=True)
class ModelTransform:
    """How the images were prepared that a model's pretrained weights were made for.

    The shorter side is resized to `resize` pixels, a square of `crop` is cut from the
    middle, and pixels in 0..1 are normalised per channel.
    """

    resize: int
    crop: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


def load_model(
    spec: str,
    weights: str | Path | None = None,
    model_args: Mapping[str, Any] | None = None,
    num_classes: int | None = None,
) -> nn.Module:
    """The network `spec` in eval mode, on the CPU.

    Args:
        spec: ``torchvision:NAME``, ``timm:NAME`` or ``path.py:factory``.
        weights: a safetensors file, a state dict saved by torch, ``default`` for the
            library's pretrained weights, or None for a random initialisation.
        model_args: keyword arguments of the constructor.
        num_classes: outputs of the classifier; None leaves the constructor's default.

    Raises:
        UsageError: unknown model, or arguments that its constructor refuses.
        BadInput: weights that cannot be read, downloaded or do not fit.
        EngineUnavailable: timm is asked for but not installed.
    """
    kind, name = _split(spec)
    arguments = dict(model_args or {})
    if num_classes is not None:
        arguments["num_classes"] = num_classes
    pretrained = weights == "default"
    if kind == "torchvision":
        model = _from_torchvision(name, arguments, pretrained)
    elif kind == "timm":
        model = _from_timm(name, arguments, pretrained)
    else:
        if pretrained:
            raise UsageError(
                f"{spec} has no weights named 'default'.",
                "Give --weights FILE, or load them in your function.",
            )
        model = _from_file(Path(kind), name, arguments)
    if weights is not None and not pretrained:
        load_weights(model, weights)
    return model.eval()


def model_transform(spec: str) -> ModelTransform | None:
    """How images are prepared for the model's default weights; None where it has none."""
    kind, name = _split(spec)
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
    """(C, H, W) that the model's pretrained weights were made for, else (3, 224, 224)."""
    own = model_transform(spec)
    return (3, own.crop, own.crop) if own else (3, 224, 224)


def load_weights(model: nn.Module, path: str | Path) -> None:
    """Load a safetensors file or a state dict saved by torch; every entry must fit.

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
    """The tensors of a safetensors file or of a state dict saved by torch, on the CPU.

    Raises:
        BadInput: no such file, not a file of tensors, or a truncated one.
    """
    path = Path(path)
    if not path.is_file():
        raise BadInput(f"There is no weights file {path}.", "Check the path.")
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
            f"{path} cannot be read as weights: {_first_line(error)}.",
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
    metadata: Mapping[str, Any] | None = None,
) -> None:
    """Write a state dict as safetensors, atomically; equal content gives equal bytes.

    `metadata` (JSON values) is kept in one entry, because safetensors writes several in
    an order that changes from call to call.

    Raises:
        BadInput: the folder cannot be written or the disk is full.
    """
    tensors = {
        name: value.detach().cpu().contiguous().clone()
        for name, value in state_dict.items()
    }
    header = {"dpcompress": canonical_json(dict(metadata or {}))}
    with replacing(path) as temporary:
        try:
            save_file(tensors, temporary, header)
        except SafetensorError as error:
            raise OSError(_first_line(error)) from error


def read_metadata(path: str | Path) -> dict[str, Any]:
    """What `save_weights` was given as metadata; {} for files of other origin.

    Raises:
        BadInput: not a safetensors file.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise BadInput(
            f"{path} cannot be read as safetensors: {_first_line(error)}.",
            "Write it again with the command that made it.",
        ) from error
    metadata = json.loads(header.get("dpcompress", "{}"))
    return dict(metadata)


def _split(spec: str) -> tuple[str, str]:
    kind, colon, name = spec.rpartition(":")
    if colon and name and (kind in ("torchvision", "timm") or kind.endswith(".py")):
        return kind, name
    raise UsageError(
        f"{spec} does not name a model.",
        "Write torchvision:NAME, timm:NAME or path.py:function.",
    )


def _from_torchvision(name: str, arguments: _Arguments, pretrained: bool) -> nn.Module:
    from torchvision.models import get_model

    _torchvision_name(name)
    weights = "DEFAULT" if pretrained else None
    with _construction(f"torchvision:{name}", pretrained):
        return get_model(name, weights=weights, progress=False, **arguments)


def _torchvision_name(name: str) -> None:
    from torchvision import models

    known = models.list_models(module=models)
    if name not in known:
        raise _unknown(f"torchvision:{name}", name, known)


def _from_timm(name: str, arguments: _Arguments, pretrained: bool) -> nn.Module:
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
    """The package timm, which must know the model `name`."""
    try:
        import timm
    except ImportError as error:
        raise EngineUnavailable(
            f"timm:{name} needs the package timm, which is not installed.",
            "Install it with: pip install 'dpcompress[timm]'",
        ) from error
    if not timm.is_model(name):
        raise _unknown(f"timm:{name}", name, timm.list_models())
    module: ModuleType = timm
    return module


def _from_file(path: Path, factory: str, arguments: _Arguments) -> nn.Module:
    if not path.is_file():
        raise UsageError(f"There is no file {path}.", "Write MODEL as path.py:function.")
    with _importing_from(path):
        module = _run_file(path)
        make = getattr(module, factory, None)
        if not callable(make):
            public = [n for n, v in vars(module).items() if inspect.isfunction(v)]
            raise _unknown(f"{path}:{factory}", factory, public)
        try:
            inspect.signature(make).bind(**arguments)
        except TypeError as error:
            raise UsageError(
                f"{path}:{factory} cannot be called with these arguments: {error}.",
                "See --model-args.",
            ) from error
        try:
            model = make(**arguments)
        except Exception as error:
            raise _fault_in(path, error) from error
    if not isinstance(model, nn.Module):
        raise UsageError(
            f"{path}:{factory} returned {type(model).__name__}, not a torch.nn.Module.",
            "Let the function return the network itself.",
        )
    return model


def _run_file(path: Path) -> ModuleType:
    found = importlib.util.spec_from_file_location(f"_model_{path.stem}", path.resolve())
    assert found is not None and found.loader is not None
    module = importlib.util.module_from_spec(found)
    sys.modules[found.name] = module
    try:
        found.loader.exec_module(module)
    except Exception as error:
        raise _fault_in(path, error) from error
    return module


@contextmanager
def _importing_from(path: Path) -> Iterator[None]:
    """Let the user's file import its neighbours, as when Python runs it as a script."""
    folder = str(path.resolve().parent)
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)


def _fault_in(path: Path, error: Exception) -> BadInput:
    if isinstance(error, SyntaxError):
        lines, what = [error.lineno], error.msg
    else:
        frames = traceback.extract_tb(error.__traceback__)
        lines = [f.lineno for f in frames if Path(f.filename) == path.resolve()]
        what = _first_line(error)
    place = f"{path}, line {lines[-1]}" if lines else str(path)
    return BadInput(
        f"{place}: {type(error).__name__}: {what}.",
        "Repair the file; it must run on its own with python.",
    )


@contextmanager
def _construction(spec: str, pretrained: bool) -> Iterator[None]:
    """Turn a library's refusal to build or to download into one sentence."""
    try:
        yield
    except (TypeError, ValueError, AssertionError) as error:
        raise UsageError(
            f"{spec} cannot be built: {_first_line(error)}.", "See --model-args."
        ) from error
    except Exception as error:
        # Download errors: urllib's for torchvision, the hub's and its client's for timm.
        if not pretrained:
            raise
        raise BadInput(
            f"The pretrained weights of {spec} cannot be had: {_first_line(error)}.",
            "Connect to the internet once, or give --weights FILE.",
        ) from error


def _unknown(what: str, name: str, known: Iterable[str]) -> UsageError:
    close = difflib.get_close_matches(name, list(known), n=3)
    remedy = f"Did you mean {' or '.join(close)}?" if close else "Check the spelling."
    return UsageError(f"There is no model {what}.", remedy)


def _unwrap(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Without the prefix that torch's DataParallel puts before every name."""
    if state and all(name.startswith("module.") for name in state):
        return {name.removeprefix("module."): value for name, value in state.items()}
    return state


def _size(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "a single number"


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
