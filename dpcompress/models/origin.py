"""The origin of weights: the plan, the original network and the form they belong to."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, Self

import torch
from pydantic import model_validator
from safetensors import SafetensorError, safe_open
from torch import Tensor

from dpcompress.blueprint.data import Frozen, parse
from dpcompress.errors import BadInput, DpcompressWarning, first_line
from dpcompress.files import canonical_json, digest

Form = Literal["original", "linearized", "merged"]

_REMEDIES: dict[Form, str] = {
    "original": "Give the weights of the original network.",
    "linearized": "Give the weights that finetune wrote, or solve and finetune again.",
    "merged": "Give the weights that merge wrote for this plan.",
}


class Origin(Frozen):
    """The plan, the original and the form that a file of weights belongs to.

    form: which network has these weights: the original, the linearized one that is
        trained, or the merged one.
    original: `weights_digest` of the original network (in the form "original", of these
        weights). None if unknown.
    plan: `Plan.digest`; None for the form "original".
    """

    form: Form
    original: str | None
    plan: str | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.plan is None) != (self.form == "original"):
            raise ValueError("all but the original network have a plan")
        return self


def weights_digest(state_dict: Mapping[str, Tensor], structure: str = "") -> str:
    """Digest the names, types, shapes and bits of a state dict, in any order.

    Args:
        structure: text that is digested too, as a network's description.
    """
    whole = sha256(structure.encode())
    for name, value in sorted(state_dict.items()):
        whole.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        raw = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        whole.update(raw.numpy().tobytes())
    return digest(whole.digest())


def weights_file(path: str | Path) -> Path:
    """Check that `path` is a file, and return it.

    Raises:
        BadInput: there is none.
    """
    path = Path(path)
    if not path.is_file():
        raise BadInput(f"There is no weights file {path}.", "Check the path.")
    return path


def read_metadata(path: str | Path) -> dict[str, Any]:
    """Read the facts that `save_weights` wrote beside the weights; {} in foreign files.

    Raises:
        BadInput: no such file, or one that ends with .safetensors and is none.
    """
    path = weights_file(path)
    if path.suffix != ".safetensors":
        return {}
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
        facts: Any = json.loads(header.get("dpcompress", "{}"))
        if not isinstance(facts, dict):
            raise ValueError("its metadata are not a JSON object")
        return facts
    except (SafetensorError, OSError, ValueError) as error:
        raise BadInput(
            f"{path} cannot be read as weights: {first_line(error)}.",
            "Write it again with the command that made it.",
        ) from error


def read_origin(path: str | Path) -> Origin | None:
    """Read the origin that `save_weights` wrote into a file; None in foreign files.

    Raises:
        BadInput: the file cannot be read, or its origin is malformed.
    """
    found = read_metadata(path).get("origin")
    return None if found is None else parse(Origin, canonical_json(found), path)


def require_origin(
    path: str | Path,
    *,
    form: Form | Sequence[Form],
    plan: str | None = None,
    original: str | None = None,
) -> Origin | None:
    """Refuse weights of another form, plan or original network than these.

    Weights without an origin, as a training loop of the user's own writes them, are
    accepted. If a plan or an original was given, a warning says that it was not checked.

    Args:
        form: the form, or forms, that the weights may have.
        plan: the wanted `Plan.digest`; weights of the form "original" have none.
        original: the wanted `weights_digest` of the original network.

    Raises:
        BadInput: a mismatch, with both sides of it.
    """
    forms: Sequence[Form] = (form,) if isinstance(form, str) else form
    origin = read_origin(path)
    if origin is None:
        if plan is not None or original is not None:
            warnings.warn(
                f"{path} does not say which plan its weights belong to, so that this "
                "could not be checked.",
                DpcompressWarning,
                stacklevel=2,
            )
        return None
    if origin.form not in forms:
        raise BadInput(
            f"{path} holds {_named(origin.form)} weights (of plan {origin.plan}), not "
            f"{' or '.join(map(_named, forms))} ones.",
            _REMEDIES[forms[0]],
        )
    pairs = (("plan", origin.plan, plan), ("original", origin.original, original))
    for name, found, wanted in pairs:
        if found is not None and wanted is not None and found != wanted:
            raise BadInput(
                f"{path} holds weights for the {name} {found}, not for the {name} "
                f"{wanted}.",
                _REMEDIES[forms[0]],
            )
    return origin


def _named(form: Form) -> str:
    return "the original's" if form == "original" else form
