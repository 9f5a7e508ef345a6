"""Do sums of a table predict whole networks? MobileNetV2-1.0 at 224×224, 40 networks per
engine and batch size, none of which was used for the table or for any fitting.

    python experiments/latency/fidelity.py

Writes fidelity.json, and for each engine and batch a table, its check and a picture.
"""

import mobilenet

from dpcompress.latency import Store, profile
from dpcompress.pipeline.fidelity import check_table, write_check


def main() -> None:
    parser = mobilenet.arguments(__doc__)
    parser.add_argument("--engines", nargs="+", default=["onnxruntime", "openvino"])
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8])
    parser.add_argument("--plans", type=int, default=40)
    options = parser.parse_args()
    made, blueprint = mobilenet.network(options.model, options.size)
    found = {}
    for engine in options.engines:
        for batch in options.batches:
            table = profile(
                blueprint,
                original=mobilenet.original(made, blueprint, batch),
                engine=engine,
                batch=batch,
                threads=options.threads,
                store=Store(options.output / "fidelity.sqlite"),
            )
            path = options.output / f"{engine}_batch{batch}.csv"
            table.write(path)
            fidelity = check_table(made, blueprint, table, options.plans)
            write_check(fidelity, path)
            print(f"{engine}, batch {batch}: {fidelity.sentence}", flush=True)
            found[f"{engine} batch {batch}"] = fidelity.summary
    mobilenet.write(options.output / "fidelity.json", found)


if __name__ == "__main__":
    main()
