"""Fine-tuning in linearized form against merged form, at equal images and by the clock.

Both start from one plan: the linearized form from the original's own weights, the merged
form from spans that were fitted (`fit_merged`), as it is or with fresh batch norms. Every
epoch ends with the accuracy on the test images; seconds of processor time do not count
evaluation.

    python experiments/cifar10/forms.py plan.json --data cifar10:DIR \\
        --weights ../shared/data/mobilenet_v2_cifar10.safetensors -o forms.csv
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch
from torch import nn

from dpcompress import fit_merged, linearize, load_model
from dpcompress.blueprint import Plan
from dpcompress.files import write_text
from dpcompress.graph import with_norms
from dpcompress.importance import calibration_images
from dpcompress.training import Data, Recipe, evaluate, finetune, load_data

FORMS = ("linearized", "merged", "merged with norms")


def start(form: str, original: nn.Module, plan: Plan, data: Data) -> nn.Module:
    if form == "linearized":
        return linearize(original, plan)
    images = calibration_images(data, 1024)
    network, _ = fit_merged(original, plan, images)
    if form == "merged with norms":
        with_norms(network, images)
    return network


def run(form: str, original: nn.Module, plan: Plan, data: Data, recipe: Recipe):
    """One row per epoch; epoch 0 is the start."""
    began = time.process_time()
    network = start(form, original, plan, data)
    seconds = {0: time.process_time() - began}
    rows = [evaluate(network, data.test)]
    began = time.process_time()
    finetune(network, data, recipe, teacher=original, validate=False)
    seconds[recipe.epochs] = seconds[0] + time.process_time() - began
    rows.append(evaluate(network.eval(), data.test))
    for (epoch, spent), metrics in zip(seconds.items(), rows, strict=True):
        yield {
            "form": form,
            "lr": recipe.lr,
            "epoch": epoch,
            "images_per_epoch": len(data.train),
            "cpu_seconds": round(spent, 1),
            "test_accuracy": metrics.accuracy,
            "test_loss": round(metrics.loss, 4),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("plan", type=Path)
    parser.add_argument("--data", required=True)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--images", type=int, default=50_000, help="per epoch")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--lr", type=float, nargs="+", default=[0.02])
    parser.add_argument("--forms", nargs="+", default=FORMS, choices=FORMS)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    network = Path(__file__).parent / "network.py"
    original = load_model(f"{network}:mobilenet_v2", options.weights)
    data = load_data(options.data, input_size=(3, 32, 32))
    data = replace(data, train=data.train.sample(options.images, 0))
    plan = Plan.from_json(options.plan.read_bytes(), options.plan)
    rows: list[dict[str, object]] = []
    for lr in options.lr:
        recipe = Recipe(epochs=options.epochs, lr=lr, distill_weight=0.5)
        for form in options.forms:
            for row in run(form, original, plan, data, recipe):
                rows.append(row)
                print(row, flush=True)
            write_text(options.output, pd.DataFrame(rows).to_csv(index=False))


if __name__ == "__main__":
    main()
