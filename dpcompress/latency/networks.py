"""Whole networks side by side."""

from __future__ import annotations

from collections.abc import Mapping

from dpcompress.latency.engines import open_engine
from dpcompress.progress import Progress, silent
from dpcompress.runner import (
    NETWORKS,
    Measurement,
    Sampling,
    Subject,
    compare,
)


def bench_networks(
    networks: Mapping[str, bytes],
    *,
    engine: str = "onnxruntime",
    threads: int | None = None,
    precision: str = "fp32",
    device: str | None = None,
    sampling: Sampling = NETWORKS,
    progress: Progress = silent,
) -> dict[str, Measurement]:
    """Time networks (name → ONNX bytes of a fixed batch size) interleaved, in this
    process. `dpcompress.runner.ratio` of two results is their paired speed-up.

    Raises:
        EngineUnavailable: no such engine, precision or device here.
        BadInput: the engine rejects a network.
    """
    opened = open_engine(engine, threads=threads, precision=precision, device=device)

    def subject(name: str, onnx: bytes) -> Subject:
        return Subject(name, lambda: opened.load(onnx))

    subjects = [subject(name, onnx) for name, onnx in networks.items()]
    return compare(subjects, sampling, progress=progress)
