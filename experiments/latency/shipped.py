"""Make the tables in latency_tables/, and their README.

    python -m experiments latency.shipped [NAME ...]

All of them, or those whose names contain one of the arguments; what is finished or begun
is not measured again, so it may be cut off at any time.
"""

import time
from dataclasses import dataclass
from pathlib import Path

from dpcompress.files import write_text
from dpcompress.latency import profile
from dpcompress.runner import Target
from dpcompress.tables import LatencyTable
from experiments.latency import mobilenet

FOLDER = Path(__file__).parents[2] / "latency_tables"
ENGINES = ("onnxruntime", "openvino")
TEXT = """# Latency tables

What every candidate span costs, merged into one convolution, at 224×224, fp32. They are
for trying the solver without an engine, and for comparing with; a plan for your machine
needs a table from your machine (`dpcompress profile`).

```bash
dpcompress solve --latency latency_tables/mobilenet_v2_1.0_onnxruntime_batch1.csv \\
    --importance I.csv --budget 70% -o plan.json
```

File names say model, engine and batch size; the header of each file holds the rest.
MobileNetV2 and the two ResNets, VGG19-BN are torchvision's, EfficientNet-Lite0 is timm's,
with 1,000 classes. All were made with

```bash
pip install -e '.[timm,openvino]'
python -m experiments latency.shipped    # makes the tables that are not there
```

which goes on where it was cut off, on a virtual machine with two AMD EPYC cores, whose
host other guests share; two threads. How ops are timed, and how far sums of such rows are
from whole networks, is told in
[experiments/latency](../experiments/latency/README.md). The `method` in a
header names the way of timing: `framed-4` is today's, earlier ones repeat less well.

- **spans**: rows of the table; **ops**: different ones among them, each timed once.
- **spread**: half the interquartile range of a row's windows relative to the row, median
  over the rows. It says how noisy the machine was, not how well the median is known: with
  as many windows as **samples** says (median over the rows) that is several times better.
- **original**: the whole original network; **fixed**: what of it no span covers.

| table | engine | made | spans | ops | samples | spread | original, ms | fixed, ms |
|---|---|---|---|---|---|---|---|---|
"""


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


def write_readme() -> None:
    """Write latency_tables/README.md: one line for each table, from its header."""
    lines = []
    for file in sorted(FOLDER.glob("*.csv")):
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
        lines.append("| " + " | ".join(map(str, cells)) + " |\n")
    write_text(FOLDER / "README.md", TEXT + "".join(lines))


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
    write_readme()


if __name__ == "__main__":
    main()
