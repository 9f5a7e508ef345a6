"""``python -m dpcompress.runner`` times a bundle, with numpy and one engine."""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from typing import List, Optional, Union

from dpcompress.errors import BadInput, DpcompressError
from dpcompress.runner.bundle import Bundle
from dpcompress.runner.engine import ENGINES
from dpcompress.runner.measure import measure
from dpcompress.runner.measurement import Subject
from dpcompress.runner.results import ResultsLog
from dpcompress.runner.target import Target
from dpcompress.runner.timing import OPS, OpTiming


def time_bundle(
    bundle: Bundle,
    output: str,
    target: Target,
    *,
    timing: OpTiming = OPS,
) -> int:
    """Time the graphs that `output` does not hold yet; returns their number. The batch
    size is the bundle's, not the target's.

    Raises:
        EngineUnavailable: no such engine, precision or device here.
        BadInput: a damaged bundle, or one for another engine, or `output` is of another
            run or cannot be written.
    """
    opened = target.open()
    if bundle.about.get("most_copies", 1) > opened.most_copies:
        raise BadInput(
            f"{bundle.path} holds copies of cheap ops, which {opened.name} may fuse.",
            "Make it for this engine: dpcompress profile MODEL "
            f"--engine {opened.name} --bundle FILE",
        )

    def subject(name: str, file: str, size: int = 0, kind: str = "") -> Subject:
        return Subject(name, lambda: opened.load(bundle.graph(file)), size, kind)

    header = {**bundle.about, "bundle": bundle.digest, "engine": opened.identity}
    with ResultsLog(output, header) as log:
        before = log.found
        subjects = [
            subject(*e) for e in bundle.entries if e.subject not in before.rejected
        ]
        missing = sum(s.key not in before.times for s in subjects)
        if missing:
            measure(
                subjects,
                timing.within(opened.group_bytes),
                log,
                anchor=subject("anchor", bundle.anchor),
                progress=_Progress(),
            )
            log.note(opened.notes)
    return missing


class _Progress:
    """Tells how far it is, every ten seconds at most."""

    def __init__(self) -> None:
        self._began, self._told = time.monotonic(), float("-inf")

    def __call__(self, done: int, total: int, key: str) -> None:
        now = time.monotonic()
        if done == total or now - self._told >= 10:
            self._told = now
            sys.stderr.write(f"{done}/{total} graphs, {now - self._began:.0f} s\n")


def _warn(message: Union[Warning, str], *_: object) -> None:
    sys.stderr.write(f"warning: {message}\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dpcompress.runner",
        description="Time the graphs of a bundle on this machine. What was cut off is "
        "resumed: run the same command again.",
    )
    parser.add_argument("bundle", help="made by: dpcompress profile MODEL --bundle FILE")
    parser.add_argument(
        "-o", "--output", required=True, help="results (JSON lines), for --results"
    )
    parser.add_argument(
        "--engine",
        default="onnxruntime",
        help=f"{', '.join(ENGINES)}; options of its own after a colon, as in "
        "tensorrt:workspace_mb=512,tactics=internal",
    )
    parser.add_argument("--threads", type=int, help="default: all cores")
    parser.add_argument("--precision", default="fp32", help="fp32, tf32, fp16")
    parser.add_argument("--device", help="default: cpu, or cuda where there is no other")
    return parser


def main(arguments: Optional[List[str]] = None) -> None:
    """Run the command line; exits with the code of the error, if there is one."""
    options = vars(_parser().parse_args(arguments))
    warnings.showwarning = _warn  # type: ignore[assignment]
    bundle, output = options.pop("bundle"), options.pop("output")
    try:
        count = time_bundle(Bundle(bundle), output, Target(**options))
    except DpcompressError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    print(f"{output}: {count} graphs timed")


if __name__ == "__main__":
    main()
