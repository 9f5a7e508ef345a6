"""Why one plan's float32 results lie apart: the merge, or the network?

    python -m experiments.zoo.rounding torchvision:efficientnet_b0 3x96x96 4

Takes a network, an input size and the seed of a random plan, as in `zoo`, and varies how
far the norms' statistics are from what the images give. Prints a table.
"""

from __future__ import annotations

import argparse
import copy
from typing import Any

import torch
from torch import Tensor, fx

from dpcompress.blueprint import Blueprint, Plan
from dpcompress.cli.options import parse_input
from dpcompress.graph import certify, linearize, merge_unchecked, trace
from dpcompress.graph.nodes import op_nodes
from dpcompress.models import load_model
from experiments.zoo.zoo import relative
from tests.graph.networks import random_plan, randomise

NUDGE = 1e-9


def nudged(network: fx.GraphModule, node: fx.Node, images: Tensor) -> Tensor:
    """The output when noise of NUDGE of the largest value is added after `node`."""

    class Nudge(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            value = super().run_node(n)
            if n is node:
                value = value + NUDGE * value.abs().max() * torch.randn_like(value)
            return value

    output: Tensor = Nudge(network).run(images)
    return output


@torch.no_grad()
def row(network: fx.GraphModule, blueprint: Blueprint, plan: Plan) -> dict[str, float]:
    images = torch.randn(1, *blueprint.input, dtype=torch.float64)
    wide, merged = copy.deepcopy(network).double(), merge_unchecked(network)
    single, exact = copy.deepcopy(merged).float(), wide(images)
    proof = certify(network, merged)
    first = op_nodes(wide)[blueprint.layers[plan.spans[0][1] - 1].out]
    return {
        "largest output": float(exact.abs().max()),
        "linearized to merged, float64": relative(merged(images), exact),
        "linearized to merged, float32": relative(
            single(images.float()), network(images.float())
        ),
        "float32 to float64, linearized": relative(
            network(images.float()).double(), exact
        ),
        "float32 to float64, merged": relative(single(images.float()).double(), exact),
        "from casting merged weights alone": relative(
            copy.deepcopy(single).double()(images), exact
        ),
        "worst span on its own, float32": max(s.random.float32 for s in proof.spans),
        "noise after the first span grows by": relative(
            nudged(wide, first, images), exact
        )
        / NUDGE,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("network")
    parser.add_argument("input", type=parse_input)
    parser.add_argument("seed", type=int)
    asked = parser.parse_args()
    shape = tuple(asked.input)
    torch.manual_seed(0)
    model = load_model(asked.network)
    randomise(model, shape)
    blueprint = trace(model, shape)
    plan = random_plan(blueprint, asked.seed)
    columns = {}
    for noise in (1.0, 0.5, 0.0):
        linear = linearize(model, plan)
        randomise(linear, shape, asked.seed, noise=noise)
        columns[noise] = row(linear, blueprint, plan)
    print("| noise of the statistics |" + "".join(f" {n:g} |" for n in columns))
    print("|---" * (1 + len(columns)) + "|")
    for name in columns[1.0]:
        cells = "".join(f" {column[name]:.2g} |" for column in columns.values())
        print(f"| {name} |{cells}")


if __name__ == "__main__":
    main()
