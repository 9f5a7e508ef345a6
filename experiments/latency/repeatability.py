"""Do two tables, made one after the other, agree? On a calm machine, and while another
process loads one core for a third of the time.

    python experiments/latency/repeatability.py

Writes repeatability.json: relative differences of rows, median and 95th percentile.
"""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import mobilenet
import numpy as np

from dpcompress.latency import profile

LOAD = """
import time
while True:
    began = time.perf_counter()
    while time.perf_counter() - began < 0.1:
        pass
    time.sleep(0.2)
"""


@contextmanager
def load(wanted: bool) -> Iterator[None]:
    process = subprocess.Popen([sys.executable, "-c", LOAD]) if wanted else None
    try:
        yield
    finally:
        if process:
            process.kill()
            process.wait()


def main() -> None:
    parser = mobilenet.arguments(__doc__)
    parser.add_argument("--engine", default="onnxruntime")
    parser.add_argument("--batch", type=int, default=1)
    options = parser.parse_args()
    made, blueprint = mobilenet.network(options.model, options.size)
    onnx = mobilenet.original(made, blueprint, options.batch)

    def rows(loaded: bool) -> np.ndarray:
        with load(loaded):
            table = profile(
                blueprint,
                original=onnx,
                engine=options.engine,
                batch=options.batch,
                threads=options.threads,
            )
        return table.frame["latency_ms"].to_numpy()

    calm = rows(False)
    pairs = {"calm, calm": (calm, rows(False))}
    loaded = rows(True)
    pairs |= {"calm, loaded": (calm, loaded), "loaded, loaded": (loaded, rows(True))}
    found = {}
    for name, (first, second) in pairs.items():
        mean = (first + second) / 2
        differences = np.abs(first - second) / np.where(mean > 0, mean, 1)
        median, p95 = np.quantile(differences, (0.5, 0.95))
        found[name] = {
            "rows": len(differences),
            "median_difference": float(median),
            "p95_difference": float(p95),
            "sum_difference": float(abs(second.sum() / first.sum() - 1)),
        }
    mobilenet.write(options.output / "repeatability.json", found)


if __name__ == "__main__":
    main()
