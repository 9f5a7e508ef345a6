"""What padding tiny maps before depthwise convolutions saves in training.

    python experiments/training/small_maps.py

Steps of MobileNetV2 at 32×32 with and without it alternate in one process
(dpcompress/training/layout.py). Writes small_maps.csv: median milliseconds a step, the
median of the paired ratios, and half its interquartile range.
"""

import argparse
import statistics
import time
from pathlib import Path

import pandas as pd
import torch
from linearized_cost import stepper
from torchvision.models import mobilenet_v2

from dpcompress.files import write_text
from dpcompress.training import deterministic
from dpcompress.training.layout import fast_layout


def measure(stem: int, batch: int, seconds: float) -> dict[str, object]:
    torch.manual_seed(0)
    network = mobilenet_v2(num_classes=10)
    network.features[0][0].stride = (stem, stem)
    step = stepper(network, batch, 32)

    def padded() -> float:
        with fast_layout():
            return step()

    pairs: list[tuple[float, float]] = []
    step(), padded()
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        pairs.append((step(), padded()))
    low, middle, high = statistics.quantiles([a / b for a, b in pairs], n=4)
    return {
        "stem_stride": stem,
        "batch": batch,
        "threads": torch.get_num_threads(),
        "pairs": len(pairs),
        "plain_ms": round(statistics.median(a for a, _ in pairs), 1),
        "padded_ms": round(statistics.median(b for _, b in pairs), 1),
        "ratio": round(middle, 2),
        "spread": round((high - low) / 2, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=15, help="for each row")
    options = parser.parse_args()
    rows = []
    for threads in (1, 2):
        with deterministic(threads):
            rows += [
                measure(stem, batch, options.seconds)
                for stem, batch in ((2, 32), (1, 128))
            ]
    text = pd.DataFrame(rows).to_csv(index=False, lineterminator="\n")
    write_text(Path(__file__).with_suffix(".csv"), text)
    print(text, end="")


if __name__ == "__main__":
    main()
