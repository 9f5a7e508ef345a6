"""What fine-tuning costs in linearized form: MobileNetV2 with every block one span.

    python experiments/training/linearized_cost.py

Steps of the original and of the linearized network alternate in one process, as `fit`
takes them (channels last, deterministic kernels, SGD). Writes linearized_cost.csv: median
milliseconds a step, the median of the paired ratios, and half its interquartile range.
"""

import argparse
import csv
import io
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F
from torchvision.models import mobilenet_v2

from dpcompress.blueprint import Blueprint, Plan
from dpcompress.files import write_text
from dpcompress.graph import linearize, trace
from dpcompress.training import deterministic


def whole_blocks(blueprint: Blueprint) -> Plan:
    """Every inverted residual one span, which ends in an activation of its own."""
    depth = blueprint.depth
    ends = [p for p in range(1, depth) if not blueprint.has_activation(p)]
    return Plan.build(
        (0, 1, *ends, depth),
        (1, *ends, depth),
        added_activations=tuple(ends),
        blueprint=blueprint.digest,
        input=blueprint.input,
    )


def stepper(network: nn.Module, batch: int, size: int) -> Callable[[], float]:
    """A function that trains `network` for one step and returns its milliseconds."""
    network = network.train().to(memory_format=torch.channels_last)
    images = torch.randn(batch, 3, size, size)
    images = images.contiguous(memory_format=torch.channels_last)
    labels = torch.arange(batch) % 10
    sgd = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9, nesterov=True)

    def step() -> float:
        began = time.perf_counter()
        F.cross_entropy(network(images), labels).backward()
        sgd.step()
        sgd.zero_grad()
        return 1e3 * (time.perf_counter() - began)

    return step


def measure(size: int, batch: int, stem: int, seconds: float) -> dict[str, object]:
    torch.manual_seed(0)
    original = mobilenet_v2(num_classes=10)
    original.features[0][0].stride = (stem, stem)
    plan = whole_blocks(trace(original.eval(), (3, size, size)))
    steps = [stepper(n, batch, size) for n in (linearize(original, plan), original)]
    pairs: list[list[float]] = []
    for step in steps * 2:
        step()
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        order = (0, 1) if len(pairs) % 2 else (1, 0)
        times = {i: steps[i]() for i in order}
        pairs.append([times[0], times[1]])
    ratios = [ours / theirs for ours, theirs in pairs]
    low, middle, high = statistics.quantiles(ratios, n=4)
    return {
        "input": size,
        "stem_stride": stem,
        "batch": batch,
        "threads": torch.get_num_threads(),
        "pairs": len(pairs),
        "original_ms": round(statistics.median(p[1] for p in pairs), 1),
        "linearized_ms": round(statistics.median(p[0] for p in pairs), 1),
        "ratio": round(middle, 3),
        "spread": round((high - low) / 2, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=60, help="for each size")
    options = parser.parse_args()
    with deterministic(options.threads):
        rows = [
            measure(size, batch, stem, options.seconds)
            for size, batch, stem in ((32, 64, 1), (224, 8, 2))
        ]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(Path(__file__).with_suffix(".csv"), text.getvalue())
    print(text.getvalue(), end="")


if __name__ == "__main__":
    main()
