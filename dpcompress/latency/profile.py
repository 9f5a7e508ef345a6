"""Measuring a latency table on an engine that is here."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from dpcompress.blueprint import Blueprint
from dpcompress.latency.build_table import build_table
from dpcompress.latency.frames import method
from dpcompress.latency.store import Store, StoreLog
from dpcompress.latency.workload import TimedGraph, Workload, anchor, network_graph
from dpcompress.onnxio.precision import in_precision
from dpcompress.progress import Progress, silent
from dpcompress.runner import OPS, OpTiming, Session, Subject, Target, measure
from dpcompress.tables import LatencyTable


def profile(
    blueprint: Blueprint,
    *,
    original: bytes,
    target: Target,
    timing: OpTiming = OPS,
    store: Store | None = None,
    progress: Progress = silent,
) -> LatencyTable:
    """Measure T[i,j] of every candidate span of `blueprint` (Kim et al. 2023, §4).

    Args:
        original: ONNX of the original network at the target's batch size, norms folded,
            exported the way that merged networks will be.
        store: what is in it is not timed again; new measurements go into it at once.

    Raises:
        EngineUnavailable: the engine, its precision or its device is not available here.
        BadInput: the engine rejects the original network or one of its own layers.
    """
    engine = target.open()

    def subject(graph: TimedGraph) -> Subject:
        def load() -> Session:
            return engine.load(_onnx(graph.make, target.precision))

        return Subject(graph.subject, load, graph.bytes, graph.kind)

    work = Workload(blueprint, target.batch, engine.most_copies)
    identity = {**engine.identity, "method": method(engine.most_copies)}
    log = StoreLog(Store() if store is None else store, identity, target.batch)
    network = network_graph(original)
    times = measure(
        [subject(graph) for graph in (network, *work.graphs)],
        timing.within(engine.group_bytes),
        log,
        anchor=subject(anchor()),
        progress=progress,
    )
    told = {**engine.identity, **engine.notes}
    return build_table(work, network.subject, times, log.rejected, told)


@lru_cache(maxsize=1)
def _onnx(make: Callable[[], bytes], precision: str) -> bytes:
    """The graph that `make` writes, kept while the sessions of one subject are loaded one
    after the other."""
    return in_precision(make(), precision)
