"""Makes the tables in latency_tables/, and the list of them in its README.

    python -m experiments latency.shipped [NAME ...]

All of them, or those whose names contain one of the arguments; what is finished or begun
is not measured again, so it may be cut off at any time.
"""

import time
from dataclasses import dataclass
from pathlib import Path

from dpcompress.files import write_text
from dpcompress.runner import Target
from dpcompress.tables import LatencyTable
from experiments.latency.common import arguments, measured, prepared

FOLDER = Path(__file__).parents[2] / "latency_tables"
RULE = "|---" * 9 + "|\n"  # the lines below it are made here
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
    parser = arguments(__doc__)
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
            blueprint, onnx = prepared(
                options.work, wanted.model, options.size, batch, **dict(wanted.arguments)
            )
            for engine in left if not options.prepare else ():
                began = time.perf_counter()
                target = Target(engine, threads=options.threads, batch=batch)
                table = measured(options.work, blueprint, onnx, target)
                table.write(FOLDER / f"{names[engine]}.csv")
                seconds = time.perf_counter() - began
                print(f"{names[engine]}: {len(table.frame)} rows, {seconds:.0f} s")
    readme = FOLDER / "README.md"
    text, rule, _ = readme.read_text().partition(RULE)
    write_text(readme, text + rule + "".join(map(line, sorted(FOLDER.glob("*.csv")))))


def line(file: Path) -> str:
    """The table's line in the README, from its header."""
    table = LatencyTable.read(file)
    header, frame = table.header, table.frame
    spread = (frame["spread_ms"] / frame["latency_ms"]).median()
    cells = (
        f"`{file.name}`",
        f"{header['engine']} {header['engine_version']}",
        str(header["date"])[:10],
        len(frame),
        frame["op"].nunique(),
        f"{frame['samples'].median():.0f}",
        f"{spread:.1%}",
        f"{table.e2e_ms:.2f}",
        f"{table.fixed_ms:.2f}",
    )
    return "| " + " | ".join(map(str, cells)) + " |\n"


if __name__ == "__main__":
    main()
