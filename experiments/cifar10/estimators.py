"""How alike two estimators rank spans: fitted convolutions against brief fine-tuning.

Random spans of two or more layers are scored by both, without free activations; the CSV
holds both losses and the seconds of processor time, the last line printed is Kendall's τ.

    python experiments/cifar10/estimators.py --data cifar10:DIR \\
        --weights ../shared/data/mobilenet_v2_cifar10.safetensors -o estimators.csv
"""

from __future__ import annotations

import argparse
import random
import time
from pathlib import Path

import pandas as pd
import torch
from scipy.stats import kendalltau

from dpcompress import load_model, trace
from dpcompress.blueprint import candidates
from dpcompress.files import write_text
from dpcompress.importance import Entry, Finetune, Fit, entries
from dpcompress.training import Recipe, deterministic, load_data

LARGEST = 3
"""Kernels up to this size: larger ones are never the fastest."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--spans", type=int, default=18)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    network = Path(__file__).parent / "network.py"
    model = load_model(f"{network}:mobilenet_v2", options.weights)
    data = load_data(options.data, input_size=(3, 32, 32))
    blueprint = trace(model, (3, 32, 32))
    small = [
        span
        for span, merged in candidates(blueprint).items()
        if span.length > 1 and max(merged.conv.kernel) <= LARGEST
    ]
    spans = random.Random(options.seed).sample(small, options.spans)
    recipe = Recipe(steps=options.steps, batch_size=options.batch_size, lr=0.02)
    rows = []
    for entry in entries(blueprint, spans, free=False):
        row: dict[str, object] = {"start": entry.start, "stop": entry.stop}
        for name, estimator in (("fit", Fit()), ("finetune", Finetune(recipe))):
            row |= timed(name, estimator, model, blueprint, data, entry)
        rows.append(row)
        print(row, flush=True)
        write_text(options.output, pd.DataFrame(rows).to_csv(index=False))
    frame = pd.DataFrame(rows)
    for column in ("fit_loss", "fit_logits", "fit_residual"):
        print(column, kendalltau(frame[column], frame["finetune_loss"]))


def timed(name: str, estimator, model, blueprint, data, entry: Entry):
    began = time.process_time()
    with deterministic(threads=1), torch.random.fork_rng():
        (metrics,) = estimator(model, blueprint, data, (entry,))
    seconds = round(time.process_time() - began, 1)
    found = {f"{name}_{key}": round(value, 5) for key, value in metrics.items()}
    return found | {f"{name}_cpu_seconds": seconds}


if __name__ == "__main__":
    main()
