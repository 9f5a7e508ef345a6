"""Checkpoints: tensors and progress in one safetensors file, written atomically."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from dpcompress.errors import BadInput
from dpcompress.files import canonical_json, write_bytes
from dpcompress.models.origin import weights_digest


def state_digest(model: nn.Module) -> str:
    """Return the digest of a network's structure, as printed, and of its every bit."""
    structure = re.sub(r" at 0x[0-9a-f]+", "", str(model))
    return weights_digest(model.state_dict(), structure)


def save_checkpoint(
    path: Path, tensors: Mapping[str, Mapping[str, Tensor]], notes: Mapping[str, Any]
) -> None:
    """Write groups of tensors ("model", "momentum", …) with JSON `notes`, atomically."""
    flat = {
        f"{group}/{name}": value.detach()
        .cpu()
        .clone(memory_format=torch.contiguous_format)
        for group, members in tensors.items()
        for name, value in members.items()
    }
    write_bytes(path, save(flat, {"notes": canonical_json(dict(notes))}))


def load_checkpoint(path: Path) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """Read the groups of tensors and the notes that `save_checkpoint` wrote.

    Raises:
        BadInput: the file is damaged, or not a checkpoint.
    """
    groups: dict[str, dict[str, Tensor]] = {}
    try:
        with safe_open(path, "pt") as file:
            notes = json.loads((file.metadata() or {})["notes"])
            for key in file.keys():  # noqa: SIM118 (not a mapping)
                group, _, name = key.partition("/")
                groups.setdefault(group, {})[name] = file.get_tensor(key)
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise BadInput(
            f"The checkpoint {path} is damaged: {error}.", "Delete it to start again."
        ) from error
    return groups, notes
