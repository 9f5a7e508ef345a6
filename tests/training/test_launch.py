"""Several processes share every batch, as `accelerate launch` starts them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from dpcompress.training.checkpoint import load_checkpoint
from tests.training.distributed import train

ROOT = Path(__file__).resolve().parents[2]


def launch(folder: Path, count: int) -> None:
    """What mpirun does on CPUs: `accelerate launch --cpu` once for each process, told
    apart by their environment."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = []
    for rank in range(count):
        environment = os.environ | {
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            **{name: str(rank) for name in ("RANK", "LOCAL_RANK")},
            **{name: str(count) for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE")},
        }
        command = [sys.executable, "-m", "accelerate.commands.launch", "--cpu",
                   "--num_processes", str(count), "-m", "tests.training.distributed",
                   str(folder)]  # fmt: skip
        processes.append(
            subprocess.Popen(command, env=environment, cwd=ROOT, stderr=subprocess.PIPE)
        )
    for process in processes:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors.decode()


@pytest.mark.slow
def test_two_processes_train_as_one(tmp_path: Path) -> None:
    alone, together = tmp_path / "alone", tmp_path / "together"
    train(alone)
    launch(together, 2)
    for kind in ("plain", "norms"):
        one = load_file(alone / f"{kind}_1_of_1.safetensors")
        two = [load_file(together / f"{kind}_{n}_of_2.safetensors") for n in (1, 2)]
        for name, value in one.items():
            assert torch.equal(two[0][name], two[1][name]) or "running" in name
            if kind == "plain":
                assert torch.allclose(two[0][name], value, rtol=0, atol=1e-5), name
        groups, notes = load_checkpoint(together / f"{kind}.checkpoint")
        assert all(torch.equal(groups["model"][name], two[0][name]) for name in one)
        assert notes["step"] == 6
    logs = [(f / "plain.csv").read_text().splitlines() for f in (alone, together)]
    assert len(logs[0]) == len(logs[1]) == 2
    losses = [float(log[1].split(",")[2]) for log in logs]
    assert losses[1] == pytest.approx(losses[0], abs=1e-5)
