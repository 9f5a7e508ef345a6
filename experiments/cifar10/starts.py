"""How strong a ridge makes fitted spans a start that training does not undo.

    python -m experiments.cifar10.starts experiments/cifar10/cpu.json \\
        RUN/designs/dp-fit_1.5_….json OUTPUT --data cifar10:FOLDER \\
        --weights mobilenet_v2_cifar10.safetensors

Per ridge, on held-out images: accuracy as fitted; the largest median norm of a merged
convolution's kernels; the share of images of which the network says what it does in
evaluation mode when its norms use the batch instead; accuracy after `--steps` of the
config's recipe, in merged form with norms.
"""

from __future__ import annotations

import argparse
import copy
import json
from pathlib import Path

import pandas as pd
import torch
from torch import nn

from dpcompress.files import write_text
from dpcompress.graph import fit_merged, with_norms
from dpcompress.importance import calibration_images
from dpcompress.training import deterministic, evaluate, finetune
from experiments.cifar10.config import read_config
from experiments.cifar10.context import SHAPE, Context

RIDGES = (1e-4, 1e-2)
BATCH = 256


@torch.no_grad()
def steadiness(network: nn.Module, images: torch.Tensor) -> float:
    own = network.eval()(images).argmax(1)
    by_batch = copy.deepcopy(network).train()(images).argmax(1)
    return float((own == by_batch).double().mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", type=Path)
    parser.add_argument("design", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--data", required=True, help="cifar10:FOLDER")
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=100)
    options = parser.parse_args()
    context = Context(
        *(read_config(options.config), options.data, options.weights),
        folder=options.output.parent,
    )
    plan = SHAPE.validate_python(json.loads(options.design.read_text())["shape"])
    data = context.data
    images = calibration_images(data, context.config.calibration_images)
    others = calibration_images(data, BATCH, seed=1)
    recipe = context.config.recipe.model_copy(update={"steps": options.steps})
    rows = []
    for ridge in RIDGES:
        with deterministic(threads=1):
            network, _ = fit_merged(context.original, plan, images, ridge=ridge)
            fitted = evaluate(network, data.heldout)
            norms = [
                conv.weight.flatten(1).norm(dim=1).median().item()
                for conv in network.modules()
                if isinstance(conv, nn.Conv2d)
            ]
            with_norms(network, images)
            steady = steadiness(network, others)
            network.requires_grad_(True)
            finetune(network, data, recipe, teacher=context.original, validate=False)
            trained = evaluate(network.eval(), data.heldout)
        rows.append(
            {
                "ridge": ridge,
                "accuracy_fitted": fitted.accuracy,
                "loss_fitted": round(fitted.loss, 4),
                "largest_norm": round(max(norms), 2),
                "steady": round(steady, 4),
                "steps": options.steps,
                "accuracy_trained": trained.accuracy,
            }
        )
        write_text(options.output, pd.DataFrame(rows).to_csv(index=False))
        print(rows[-1], flush=True)


if __name__ == "__main__":
    main()
