"""What keeping freed memory saves in training (dpcompress/training/layout.py).

    python experiments/training/kept_memory.py

Processes that train MobileNetV2 at 32×32 with and without it alternate, as it cannot be
taken back. Writes kept_memory.csv: the median of each, the ratio of the medians, and the
least and largest of the paired ratios.
"""

import argparse
import statistics
import subprocess
import sys
import time
from itertools import product
from pathlib import Path

import pandas as pd
from linearized_cost import stepper
from torchvision.models import mobilenet_v2

from dpcompress.files import write_text
from dpcompress.training import deterministic, layout


def train(keep: bool, stem: int, batch: int, threads: int, seconds: float) -> float:
    """Median milliseconds of a step."""
    if not keep:
        layout.keep_freed_memory = lambda: None  # type: ignore[assignment]
    network = mobilenet_v2(num_classes=10)
    network.features[0][0].stride = (stem, stem)
    with deterministic(threads), layout.fast_layout():
        step = stepper(network, batch, 32)
        step(), step()
        times, until = [step()], time.perf_counter() + seconds
        while time.perf_counter() < until:
            times.append(step())
    return statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=4, help="for each process")
    parser.add_argument("--one", nargs=4, type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        keep, *rest = options.one
        print(train(bool(keep), *rest, options.seconds))
        return
    rows = []
    for (stem, batch), threads in product(((2, 64), (1, 128)), (1, 2)):
        pairs = []
        for _ in range(options.pairs):
            for keep in (0, 1):
                command = [sys.executable, __file__, "--seconds", str(options.seconds)]
                command += ["--one", *map(str, (keep, stem, batch, threads))]
                pairs.append(float(subprocess.check_output(command)))
        plain, kept = pairs[::2], pairs[1::2]
        ratios = [a / b for a, b in zip(plain, kept, strict=True)]
        rows.append(
            {
                "stem_stride": stem,
                "batch": batch,
                "threads": threads,
                "pairs": len(ratios),
                "plain_ms": round(statistics.median(plain), 1),
                "kept_ms": round(statistics.median(kept), 1),
                "ratio": round(statistics.median(plain) / statistics.median(kept), 2),
                "least": round(min(ratios), 2),
                "largest": round(max(ratios), 2),
            }
        )
    text = pd.DataFrame(rows).to_csv(index=False, lineterminator="\n")
    write_text(Path(__file__).with_suffix(".csv"), text)
    print(text, end="")


if __name__ == "__main__":
    main()
