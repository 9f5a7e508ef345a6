"""Random plans on known networks: linearized against merged, float64 and float32.

    python -m experiments zoo.zoo experiments/zoo/zoo.csv

Weights are random; the norms of each linearized network get random affine parameters and
statistics near their own (`randomise`). One line per network and input size; lines that
are there already are kept, so a killed run goes on.
"""

from __future__ import annotations

import argparse
import csv
import gc
from pathlib import Path

import joblib
import torch
from torch import Tensor, nn

from dpcompress.blueprint import barriers, candidates, keep_everything, legal_spans
from dpcompress.errors import DpcompressError
from dpcompress.graph import linearize, merge_unchecked, trace
from dpcompress.models import load_model
from tests.graph.networks import random_plan, randomise

LIGHT = [
    "torchvision:mobilenet_v2",
    "torchvision:mnasnet1_0",
    "torchvision:mobilenet_v3_large",
    "torchvision:efficientnet_b0",
    "torchvision:regnet_y_400mf",
    "torchvision:squeezenet1_1",
    "torchvision:shufflenet_v2_x1_0",
    "torchvision:googlenet",
    "torchvision:resnet18",
    "timm:mobilenetv2_100",
    "timm:mobilenetv2_140",
    "timm:efficientnet_lite0",
    "timm:tf_efficientnet_lite0",
    "timm:mnasnet_100",
    "timm:fbnetc_100",
    "timm:mobileone_s0",
    "timm:repvgg_a0",
    "timm:resnet26d",
    "timm:mobilenetv4_conv_small",
]
HEAVY = [
    "torchvision:resnet34",
    "torchvision:resnet50",
    "torchvision:resnext50_32x4d",
    "torchvision:wide_resnet50_2",
    "torchvision:densenet121",
    "torchvision:convnext_tiny",
    "torchvision:vgg11",
    "torchvision:vgg19_bn",
]
NOISE = 0.5
"""Of the statistics. When every norm of 50 layers is further off, rounding grows hundreds
of times, whatever is merged (`rounding.py`)."""
ODD, SMALL, USUAL = (3, 63, 95), (3, 96, 96), (3, 224, 224)
FIELDS = [
    "network",
    "input",
    "layers",
    "chains",
    "barriers",
    "legal_spans",
    "candidates",
    "plans",
    "fewest_convs",
    "worst_float64",
    "worst_float32",
    "worst_rounding",
    "seed_float32",
    "its_rounding",
    "keep_everything_float64",
    "refused",
]


def relative(actual: Tensor, expected: Tensor) -> float:
    return float((actual - expected).abs().max() / expected.abs().max())


def size(shape: tuple[int, int, int]) -> str:
    return "x".join(map(str, shape))


def examine(spec: str, shape: tuple[int, int, int], plans: int) -> dict[str, object]:
    torch.manual_seed(0)
    model = load_model(spec)
    randomise(model, shape, noise=NOISE)
    try:
        blueprint = trace(model, shape)
    except DpcompressError as error:
        return {"network": spec, "input": size(shape), "refused": str(error)}
    images = torch.randn(1, *shape, dtype=torch.float64)
    worst = {"worst_float64": 0.0, "worst_float32": 0.0, "worst_rounding": 0.0}
    fewest, worst_plan = blueprint.depth, {}
    for seed in range(plans):
        plan = random_plan(blueprint, seed)
        linear = linearize(model, plan)
        randomise(linear, shape, seed, noise=NOISE)
        merged = merge_unchecked(linear)
        fewest = min(fewest, len(plan.spans))
        with torch.no_grad():
            single = linear(images.float())
            wide = linear.double()(images)
            found = {
                "worst_float64": relative(merged(images), wide),
                "worst_float32": relative(merged.float()(images.float()), single),
                "worst_rounding": relative(single.double(), wide),
            }
        if found["worst_float32"] > worst["worst_float32"]:
            worst_plan = {
                "seed_float32": seed,
                "its_rounding": f"{found['worst_rounding']:.1e}",
            }
        worst = {name: max(worst[name], found[name]) for name in worst}
        # Graph modules refer to themselves, so they stay until they are looked for.
        del linear, merged
        gc.collect()
    double: nn.Module = model.double()
    kept = merge_unchecked(linearize(double, keep_everything(blueprint)))
    with torch.no_grad():
        same = relative(kept(images), double(images))
    return {
        "network": spec,
        "input": size(shape),
        "layers": blueprint.depth,
        "chains": len(blueprint.chains),
        "barriers": len(barriers(blueprint)) - 2,
        "legal_spans": len(legal_spans(blueprint)),
        "candidates": len(candidates(blueprint)),
        "plans": plans,
        "fewest_convs": fewest,
        **{name: f"{value:.1e}" for name, value in worst.items()},
        **worst_plan,
        "keep_everything_float64": f"{same:.1e}",
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("output", type=Path)
    parser.add_argument("--plans", type=int, default=20, help="at 63x95 and 96x96")
    parser.add_argument("--usual-plans", type=int, default=3, help="at 224x224")
    parser.add_argument("--workers", type=int, default=1, help="networks at a time")
    arguments = parser.parse_args()
    done = set()
    if arguments.output.exists():
        with open(arguments.output, newline="") as file:
            done = {(row["network"], row["input"]) for row in csv.DictReader(file)}
    else:
        arguments.output.write_text(",".join(FIELDS) + "\n")
    work = [(spec, ODD) for spec in LIGHT + HEAVY]
    # float64 is slow at 224: there the light networks only, and fewer plans.
    work += [(spec, SMALL) for spec in LIGHT + HEAVY]
    work += [(spec, USUAL) for spec in LIGHT]
    left = [(spec, shape) for spec, shape in work if (spec, size(shape)) not in done]
    with joblib.parallel_config("loky", inner_max_num_threads=1):
        parallel = joblib.Parallel(arguments.workers, return_as="generator_unordered")
        for row in parallel(
            joblib.delayed(examine)(
                spec, shape, arguments.usual_plans if shape == USUAL else arguments.plans
            )
            for spec, shape in left
        ):
            with open(arguments.output, "a", newline="") as file:
                csv.DictWriter(file, FIELDS).writerow(row)
            print(row, flush=True)


if __name__ == "__main__":
    main()
