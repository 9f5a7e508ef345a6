"""Building a latency table: which ops, what is known already, what must be timed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import lru_cache

import pandas as pd

from dpcompress.blueprint import Blueprint
from dpcompress.errors import BadInput
from dpcompress.files import digest
from dpcompress.latency.frames import READERS, FrameCosts, copies, frames_of, label
from dpcompress.latency.store import Store, StoreLog
from dpcompress.latency.workload import (
    Job,
    SpanOps,
    anchor,
    frame_name,
    is_op,
    jobs,
    method,
    network_name,
    span_ops,
)
from dpcompress.progress import Progress, silent
from dpcompress.runner import (
    OPS,
    Engine,
    Measurement,
    OpTiming,
    Session,
    Subject,
    Target,
    measure,
)
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
    """T[i,j] of every candidate span of `blueprint` on an engine (Kim et al. 2023, §4).

    Args:
        original: ONNX of the original network at the target's batch size, norms folded,
            exported the way that merged networks will be.
        store: what is in it is not timed again; new measurements go into it at once.

    Raises:
        EngineUnavailable: no such engine, precision or device here.
        BadInput: the engine rejects the original network or one of its own layers.
    """
    opened, batch, precision = target.open(), target.batch, target.precision
    most_copies = opened.most_copies
    identity = {**opened.identity, "method": method(most_copies)}
    log = StoreLog(Store() if store is None else store, identity, batch)
    ops = span_ops(blueprint)
    work = jobs(ops, original, batch, most_copies=most_copies, precision=precision)
    times = measure(
        [
            Subject(subject, _loader(opened, job), job.bytes, job.kind)
            for subject, job in work.items()
        ],
        timing.within(opened.group_bytes),
        log,
        anchor=Subject("anchor", _loader(opened, anchor(precision))),
        progress=progress,
    )
    name = network_name(original)
    told = {**opened.identity, **opened.notes}
    return build_table(
        blueprint, ops, times, log.rejected, name, told, batch, most_copies=most_copies
    )


def _loader(engine: Engine, job: Job) -> Callable[[], Session]:
    return lambda: engine.load(_graph(job))


@lru_cache(maxsize=1)
def _graph(job: Job) -> bytes:
    """The sessions of a subject are loaded one after the other."""
    return job.graph()


def build_table(
    blueprint: Blueprint,
    ops: SpanOps,
    times: Mapping[str, Measurement],
    rejected: Mapping[str, BadInput],
    original: str,
    identity: Mapping[str, str],
    batch: int,
    *,
    most_copies: int,
) -> LatencyTable:
    """The table of measurements, wherever they were made.

    Args:
        ops: `span_ops(blueprint)`.
        times, rejected: by subject, of all of `jobs(...)`.
        original: the subject that is the original network.
        identity: of the engine, and its notes.
        most_copies: of an op in its frame, as it was measured.

    Raises:
        BadInput: what no table can do without was rejected.
    """
    for subject, error in rejected.items():
        if not is_op(subject):
            raise error
    rows = _rows(blueprint, ops, times, rejected, batch, most_copies)
    identity = {**identity, "method": method(most_copies)}
    return _table(blueprint, rows, times[original], identity, batch, rejected)


def _rows(
    blueprint: Blueprint,
    ops: SpanOps,
    times: Mapping[str, Measurement],
    rejected: Mapping[str, BadInput],
    batch: int,
    most_copies: int,
) -> pd.DataFrame:
    once: dict[str, float] = {}
    many: dict[str, float] = {}
    for op in ops.values():
        for sources, readers in frames_of(op):
            found = many if readers == READERS else once
            found[label(sources)] = times[frame_name(sources, readers)].median_ms
    frames = FrameCosts(once, many)
    rows = []
    for (span, flag), op in ops.items():
        if op.signature in rejected:
            if span.length == 1:
                layer = blueprint.ops[blueprint.layers[span.stop - 1].conv]
                error = rejected[op.signature]
                raise BadInput(
                    f"Layer {span.stop} ({layer.name}) cannot be measured: "
                    f"{error.message}",
                    error.remedy,
                ) from error
            continue
        timed, count = times[op.signature], copies(op, batch, most_copies)
        own_ms = (timed.median_ms - frames.of(op, count)) / count
        rows.append(
            {
                "start": span.start,
                "stop": span.stop,
                "latency_ms": round(max(own_ms, 0.0), 6),
                "spread_ms": round(timed.spread_ms / count, 6),
                "op": digest(op.signature.encode()),
                "samples": timed.samples,
                "act_stop": pd.NA if flag is None else int(flag),
                "signature": op.signature,
            }
        )
    frame = pd.DataFrame(rows)
    if frame["act_stop"].isna().all():
        return frame.drop(columns="act_stop")
    return frame.astype({"act_stop": "Int64"})


def _table(
    blueprint: Blueprint,
    rows: pd.DataFrame,
    e2e: Measurement,
    identity: Mapping[str, str],
    batch: int,
    rejected: Mapping[str, BadInput],
) -> LatencyTable:
    times = LatencyTable(rows).span_times(blueprint)
    singles_ms = math.fsum(ms for span, ms in times.items() if span.length == 1)
    limits = blueprint.limits
    header: dict[str, object] = {
        **identity,
        "batch": batch,
        "input": "x".join(map(str, blueprint.input)),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "blueprint": blueprint.digest,
        "max_growth": f"{limits.max_growth:g}",
        "max_weight_mb": f"{limits.max_weight_mb:g}",
        "e2e_ms": round(e2e.median_ms, 6),
        "e2e_spread_ms": round(e2e.spread_ms, 6),
        "single_layers_ms": round(singles_ms, 6),
        "fixed_ms": round(max(e2e.median_ms - singles_ms, 0.0), 6),
    }
    if rejected:
        header["rejected_ops"] = "; ".join(sorted(rejected))
    return LatencyTable(rows, {key: str(value) for key, value in header.items()})
