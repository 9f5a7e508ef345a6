"""What does a table cost, against 3,000 runs per span as published? And what does the
same network with another classifier cost afterwards?

    python experiments/latency/cost.py

Writes cost.json. The published protocol's time is computed from the same rows.
"""

import time

import mobilenet

from dpcompress.latency import Store, profile

PUBLISHED_RUNS = 3000


def main() -> None:
    parser = mobilenet.arguments(__doc__)
    parser.add_argument("--engine", default="onnxruntime")
    parser.add_argument("--batch", type=int, default=1)
    options = parser.parse_args()
    found = {}
    with Store() as store:
        for classes in (1000, 10):
            made, blueprint = mobilenet.network(options.model, options.size, classes)
            onnx = mobilenet.original(made, blueprint, options.batch)
            known, began = len(store), time.perf_counter()
            table = profile(
                blueprint,
                original=onnx,
                engine=options.engine,
                batch=options.batch,
                threads=options.threads,
                store=store,
            )
            seconds = time.perf_counter() - began
            published = PUBLISHED_RUNS * table.frame["latency_ms"].sum() / 1e3
            found[f"{classes} classes"] = {
                "rows": len(table.frame),
                "ops": int(table.frame["op"].nunique()),
                "measured": len(store) - known,
                "seconds": seconds,
                "published_protocol_seconds": float(published),
                "times_cheaper": float(published / seconds),
            }
    mobilenet.write(options.output / "cost.json", found)


if __name__ == "__main__":
    main()
