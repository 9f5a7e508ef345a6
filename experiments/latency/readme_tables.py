"""Writes latency_tables/README.md: one line for each table in it, from its header.

python experiments/latency/readme_tables.py
"""

from shipped import FOLDER

from dpcompress.files import write_text
from dpcompress.tables import LatencyTable

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
python experiments/latency/shipped.py    # makes the tables that are not there
```

which goes on where it was cut off, on a virtual machine with two AMD EPYC cores, whose
host other guests share; two threads. How ops are timed, and how far sums of such rows are
from whole networks, is told in
[experiments/latency](../experiments/latency/README.md). Tables whose header says
`framed-2` or `framed-3` are of earlier ways, and `framed-2` repeats less well.

- **spans**: rows of the table; **ops**: different ones among them, each timed once.
- **spread**: half the interquartile range of a row's windows relative to the row, median
  over the rows. It says how noisy the machine was, not how well the median is known: with
  as many windows as **samples** says (median over the rows) that is several times better.
- **original**: the whole original network; **fixed**: what of it no span covers.

| table | engine | made | spans | ops | samples | spread | original, ms | fixed, ms |
|---|---|---|---|---|---|---|---|---|
"""


def main() -> None:
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


if __name__ == "__main__":
    main()
