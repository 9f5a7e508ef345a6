"""Networks by name: torchvision, timm, or a function of your own."""

from __future__ import annotations

import importlib.util
import inspect
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from dpcompress.errors import BadInput, UsageError, first_line
from dpcompress.models.library import Arguments, from_timm, from_torchvision
from dpcompress.models.origin import require_origin
from dpcompress.models.spec import split_spec, unknown_model
from dpcompress.models.weights import load_weights


def load_model(
    spec: str,
    weights: str | Path | None = None,
    model_args: Mapping[str, Any] | None = None,
    num_classes: int | None = None,
) -> nn.Module:
    """Load the network `spec`, in eval mode, on the CPU.

    Args:
        spec: ``torchvision:NAME``, ``timm:NAME`` or ``path.py:factory``.
        weights: a safetensors file, a state dict saved by torch, ``default`` for the
            library's pretrained weights, or None for a random initialisation.
        model_args: keyword arguments of the constructor.
        num_classes: outputs of the classifier; None leaves the constructor's default.

    Raises:
        UsageError: unknown model, or arguments that its constructor refuses.
        BadInput: weights that cannot be read or downloaded, that do not fit, or that
            are those of a linearized or merged network.
        MissingPackage: timm is asked for but not installed.
    """
    kind, name = split_spec(spec)
    arguments = dict(model_args or {})
    if num_classes is not None:
        arguments["num_classes"] = num_classes
    pretrained = weights == "default"
    if kind == "torchvision":
        model = from_torchvision(name, arguments, pretrained)
    elif kind == "timm":
        model = from_timm(name, arguments, pretrained)
    else:
        if pretrained:
            raise UsageError(
                f"{spec} has no weights named 'default'.",
                "Give --weights FILE, or load them in your function.",
            )
        model = _from_file(Path(kind), name, arguments)
    if weights is not None and not pretrained:
        require_origin(weights, form="original")
        load_weights(model, weights)
    return model.eval()


def _from_file(path: Path, factory: str, arguments: Arguments) -> nn.Module:
    """Call the function `factory` of the user's file.

    Raises:
        UsageError: no such file or function, or arguments that it refuses.
        BadInput: an error inside the file, with its line.
    """
    if not path.is_file():
        raise UsageError(f"There is no file {path}.", "Write MODEL as path.py:function.")
    with _importing_from(path):
        module = _run_file(path)
        make = getattr(module, factory, None)
        if not callable(make):
            public = [n for n, v in vars(module).items() if inspect.isfunction(v)]
            raise unknown_model(f"{path}:{factory}", factory, public)
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
    """Import the user's file as a module of a name of its own."""
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
    """Name the line of the user's file that an error came from."""
    if isinstance(error, SyntaxError):
        lines, what = [error.lineno], error.msg
    else:
        frames = traceback.extract_tb(error.__traceback__)
        lines = [f.lineno for f in frames if Path(f.filename) == path.resolve()]
        what = first_line(error)
    place = f"{path}, line {lines[-1]}" if lines else str(path)
    return BadInput(
        f"{place}: {type(error).__name__}: {what}.",
        "Repair the file; it must run on its own with python.",
    )
