"""``dpcompress runner``: the runner as one file, for other machines."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dpcompress.cli.files import Json
from dpcompress.cli.output import emit


def runner(
    pyz: Annotated[
        Path,
        typer.Option(
            "--pyz", metavar="FILE", help="The file to write.", show_default=False
        ),
    ],
    json: Json = False,
) -> None:
    """Pack the runner into one file that measures a bundle on another machine.

    There it needs Python 3.8 or newer, numpy and one engine.

    \b
    Example:
      dpcompress profile torchvision:mobilenet_v2 --bundle bundle.zip
      dpcompress runner --pyz runner.pyz
      (copy both, then there:)
      python runner.pyz bundle.zip -o results.jsonl --engine onnxruntime
      (copy the results back)
      dpcompress profile torchvision:mobilenet_v2 --results results.jsonl -o T.csv
    """
    from dpcompress.latency import pack_runner

    pack_runner(pyz)
    size = pyz.stat().st_size
    if json:
        emit({"output": str(pyz), "bytes": size})
    else:
        print(
            f"{pyz}: {size / 1e3:.0f} kB. Run: python {pyz} bundle.zip -o results.jsonl"
        )
