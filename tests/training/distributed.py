"""Trains in every process of a launch: python distributed.py FOLDER (see test_launch)."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from accelerate import Accelerator, PartialState
from torch import nn

from dpcompress.models import save_weights
from dpcompress.training import Recipe, finetune, seeded
from tests.training.networks import small_digits, tiny

RECIPE = Recipe(steps=6, batch_size=128, lr=0.05, distill_weight=0.5)


def without_norms() -> nn.Module:
    """Batch norms see one process's share of a batch; without them shares add up."""
    with seeded("without norms"):
        return nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(),
            nn.Conv2d(16, 16, 3, stride=2, padding=1), nn.ReLU(),
            nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(64, 10),
        )  # fmt: skip


def train(folder: Path) -> None:
    torch.set_num_threads(1)
    data, state = small_digits(), Accelerator().state
    name = f"{state.process_index + 1}_of_{state.num_processes}.safetensors"
    for kind, network in (("plain", without_norms()), ("norms", tiny(dropout=0))):
        checkpoint = folder / f"{kind}.checkpoint"
        finetune(
            network,
            data,
            RECIPE,
            teacher=tiny(dropout=0),
            checkpoint=checkpoint,
            log=folder / f"{kind}.csv",
        )
        save_weights(folder / f"{kind}_{name}", network.state_dict())


if __name__ == "__main__":
    train(Path(sys.argv[1]))
    PartialState().destroy_process_group()
