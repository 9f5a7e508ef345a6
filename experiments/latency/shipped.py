"""Makes the tables in latency_tables/.

    python experiments/latency/shipped.py [NAME ...]

All of them, or those whose names contain one of the arguments; what is finished or begun
is not measured again, so it may be cut off at any time.
"""

import time
from dataclasses import dataclass
from pathlib import Path

import mobilenet

from dpcompress.latency import profile
from dpcompress.runner import Target

FOLDER = Path(__file__).parents[2] / "latency_tables"
ENGINES = ("onnxruntime", "openvino")


@dataclass(frozen=True)
class Wanted:
    model: str
    batches: tuple[int, ...] = (1,)
    arguments: tuple[tuple[str, object], ...] = ()
    suffix: str = ""

    def name(self, engine: str, batch: int) -> str:
        short = self.model.partition(":")[2] + self.suffix
        return f"{short}_{engine}_batch{batch}"


WANTED = (
    Wanted("torchvision:mobilenet_v2", (1, 32), suffix="_1.0"),
    Wanted("torchvision:mobilenet_v2", (1, 32), (("width_mult", 1.4),), "_1.4"),
    Wanted("timm:efficientnet_lite0"),
    Wanted("torchvision:resnet18"),
    Wanted("torchvision:resnet34"),
    Wanted("torchvision:vgg19_bn"),
)


def main() -> None:
    parser = mobilenet.arguments(__doc__)
    parser.add_argument("names", nargs="*", default=[""])
    parser.add_argument(
        "--prepare", action="store_true", help="only trace and export the originals"
    )
    options = parser.parse_args()
    for wanted in WANTED:
        for batch in wanted.batches:
            names = {engine: wanted.name(engine, batch) for engine in ENGINES}
            left = [
                engine
                for engine, name in names.items()
                if any(part in name for part in options.names)
                and not (FOLDER / f"{name}.csv").exists()
            ]
            if not left:
                continue
            blueprint, onnx = mobilenet.prepared(
                options.work, wanted.model, options.size, batch, **dict(wanted.arguments)
            )
            for engine in left if not options.prepare else ():
                began = time.perf_counter()
                with mobilenet.store(options.work) as store:
                    table = profile(
                        blueprint,
                        original=onnx,
                        target=Target(engine, threads=options.threads, batch=batch),
                        store=store,
                    )
                table.write(FOLDER / f"{names[engine]}.csv")
                seconds = time.perf_counter() - began
                print(f"{names[engine]}: {len(table.frame)} rows, {seconds:.0f} s")


if __name__ == "__main__":
    main()
