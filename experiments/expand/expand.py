"""Expand-then-shrink against plain training for the same number of steps.

    python -m experiments expand.expand experiments/expand/expand.csv --work FOLDER

A small ResNet on scikit-learn's digits, from the same random weights either way. Each
training is a file under FOLDER; killed and called again, it goes on.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dpcompress.cli.output import progress_bar
from dpcompress.depthshrinker import expand_then_shrink
from dpcompress.files import write_text
from dpcompress.training import Data, Recipe, evaluate, finetune, load_data, seeded

INPUT = (3, 16, 16)


class Block(nn.Module):
    def __init__(self, ins: int, outs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *(nn.Conv2d(ins, outs, 3, stride, 1, bias=False), nn.BatchNorm2d(outs)),
            nn.ReLU(),
            *(nn.Conv2d(outs, outs, 3, 1, 1, bias=False), nn.BatchNorm2d(outs)),
        )
        self.skip = nn.Sequential()
        if stride > 1:
            self.skip.append(nn.Conv2d(ins, outs, 1, stride, bias=False))
            self.skip.append(nn.BatchNorm2d(outs))
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.relu(self.body(x) + self.skip(x))
        return out


def resnet(width: int) -> nn.Module:
    """Seven 3×3 convolutions in three stages, ResNet-8."""
    return nn.Sequential(
        *(nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()),
        *(Block(width, width, 1), Block(width, 2 * width, 2)),
        Block(2 * width, 4 * width, 2),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4 * width, 10)),
    )


def train(way: str, width: int, epochs: int, seed: int, data: Data) -> dict[str, Any]:
    recipe = Recipe(
        epochs=epochs, batch_size=64, lr=0.1, schedule="onecycle", warmup=0.3, seed=seed
    )
    with seeded("weights", seed):
        network = resnet(width)
    began, start_error = time.monotonic(), 0.0
    with progress_bar(f"{way}, width {width}, {epochs} epochs, seed {seed}") as progress:
        if way == "plain":
            finetune(network, data, recipe, validate=False, progress=progress)
        else:
            found = expand_then_shrink(network, data, recipe, progress=progress)
            network, start_error = found.contracted.model, found.start_error
    metrics = evaluate(network, data.test)
    return {
        "width": width,
        "epochs": epochs,
        "seed": seed,
        "way": way,
        "accuracy": round(metrics.accuracy, 4),
        "loss": round(metrics.loss, 4),
        "train_loss": round(evaluate(network, data.train).loss, 4),
        "seconds": round(time.monotonic() - began, 1),
        "start_error": float(f"{start_error:.2g}"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("output", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--widths", type=int, nargs="+", default=[8])
    parser.add_argument("--epochs", type=int, nargs="+", default=[5, 20, 60])
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = load_data("digits", input_size=INPUT)
    rows = []
    for seed in range(options.seeds):
        for width in options.widths:
            for epochs in options.epochs:
                for way in ("plain", "expanded"):
                    path = options.work / f"{way}_{width}_{epochs}_{seed}.json"
                    if not path.exists():
                        row = train(way, width, epochs, seed, data)
                        write_text(path, json.dumps(row) + "\n")
                    rows.append(json.loads(path.read_text()))
    with open(options.output, "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    for width in options.widths:
        for epochs in options.epochs:
            pairs = [
                [r["accuracy"] for r in rows
                 if (r["width"], r["epochs"], r["way"]) == (width, epochs, way)]
                for way in ("plain", "expanded")
            ]  # fmt: skip
            gains = [100 * (b - a) for a, b in zip(*pairs, strict=True)]
            plain, expanded = (100 * statistics.mean(p) for p in pairs)
            print(
                f"width {width}, {epochs} epochs: plain {plain:.2f} %, expanded "
                f"{expanded:.2f} %, {statistics.mean(gains):+.2f} %p "
                f"({', '.join(f'{g:+.2f}' for g in gains)})"
            )


if __name__ == "__main__":
    main()
