"""What merging whole blocks of MobileNetV2 can save, by a latency table.

    python -m experiments.cifar10.blocks RUN/latency_….csv
    python -m experiments.cifar10.blocks ../shared/reference_tables/mbv2_1.0_t.csv --chain

Prints, per inverted residual, how much of its time is saved when it is one convolution,
and how many such blocks it takes at least to reach a speed-up.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from dpcompress.tables import LatencyTable

BLOCKS = [(1, 3), *((start, start + 3) for start in range(3, 51, 3))]
"""Layers of each inverted residual, the stem being layer 0."""
SPEEDUPS = (1.25, 1.5, 2.0)


def savings(table: LatencyTable, first: int) -> tuple[float, list[tuple[float, float]]]:
    """Time of all layers alone, and of each block: (that of its layers, what merging
    saves); ms. `first`: the layer that the table begins with."""
    frame = table.frame
    times = frame.groupby(["start", "stop"])["latency_ms"].min().to_dict()
    single = [times[layer, layer + 1] for layer in range(table.depth)]
    found = []
    for start, stop in ((a - first, b - first) for a, b in BLOCKS):
        alone = sum(single[start:stop])
        found.append((alone, alone - times.get((start, stop), alone)))
    return sum(single), found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table", type=Path)
    parser.add_argument(
        "--chain",
        action="store_true",
        help="the table has the blocks alone, without stem and last convolution",
    )
    options = parser.parse_args()
    table = LatencyTable.read(options.table)
    total, blocks = savings(table, first=1 if options.chain else 0)
    for n, (alone, saved) in enumerate(blocks, 1):
        print(f"block {n:2}: {alone:7.3f} ms, merged {saved / alone:4.0%} less")
    gains = sorted((saved for _, saved in blocks if saved > 0), reverse=True)
    reached = [total / (total - sum(gains[:n])) for n in range(len(gains) + 1)]
    print(f"all that gain: {reached[-1]:.2f}x")
    for speedup in SPEEDUPS:
        count = next((n for n, found in enumerate(reached) if found >= speedup), None)
        print(f"{speedup:g}x: {'out of reach' if count is None else f'{count} blocks'}")


if __name__ == "__main__":
    main()
