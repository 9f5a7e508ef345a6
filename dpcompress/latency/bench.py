"""Timing whole networks side by side."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from dpcompress.onnxio.precision import in_precision
from dpcompress.progress import Progress, silent
from dpcompress.runner import (
    NETWORKS,
    Measurement,
    NetworkTiming,
    Session,
    Subject,
    Target,
    compare,
)


def bench(
    networks: Mapping[str, bytes | Path],
    target: Target,
    *,
    timing: NetworkTiming = NETWORKS,
    progress: Progress = silent,
    breakdowns: dict[str, dict[str, float]] | None = None,
) -> dict[str, Measurement]:
    """Time networks interleaved, in this process.

    `dpcompress.runner.ratio` of two results is their paired speed-up.

    Args:
        networks: name → ONNX of a fixed batch size, or a file that the engine itself
            reads.
        target: its batch size is not used, because each network has its own.
        breakdowns: filled with `Session.breakdown` of each network afterwards.

    Returns:
        Name → time per inference of a whole batch.

    Raises:
        EngineUnavailable: the engine, its precision or its device is not available here.
        BadInput: the engine rejects a network.
    """
    opened = target.open()
    last: dict[str, Session] = {}

    def load(name: str, network: bytes | Path) -> Session:
        if isinstance(network, Path):
            last[name] = opened.load_file(str(network))
        else:
            last[name] = opened.load(in_precision(network, target.precision))
        return last[name]

    subjects = [Subject(name, partial(load, name, n)) for name, n in networks.items()]
    times = compare(subjects, timing, progress=progress)
    if breakdowns is not None:
        breakdowns.update({name: s.breakdown() for name, s in last.items()})
    return times
