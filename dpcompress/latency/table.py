"""Building a latency table: which ops, what is known already, what must be timed."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pandas as pd

from dpcompress.blueprint import Blueprint, ConvSpec, Span, candidates
from dpcompress.errors import BadInput
from dpcompress.files import digest
from dpcompress.latency.frames import (
    FrameCosts,
    empty_graph,
    frame_graph,
    frame_sources,
    framed_graph,
)
from dpcompress.latency.onnx_graphs import plain_graph
from dpcompress.latency.ops import (
    Source,
    Step,
    TimedOp,
    activation_is_free,
    span_op,
)
from dpcompress.latency.store import Store
from dpcompress.progress import Progress, silent
from dpcompress.runner import (
    OPS,
    Engine,
    Measurement,
    Sampling,
    Subject,
    measure,
    open_engine,
)
from dpcompress.tables import LatencyTable

METHOD = "framed-1"
"""Names the way of timing an op; part of the key of everything measured."""


def profile(
    blueprint: Blueprint,
    *,
    original: bytes,
    engine: str = "onnxruntime",
    batch: int = 1,
    threads: int | None = None,
    precision: str = "fp32",
    sampling: Sampling = OPS,
    store: Store | None = None,
    progress: Progress = silent,
) -> LatencyTable:
    """T[i,j] of every candidate span of `blueprint` on an engine (Kim et al. 2023, §4).

    Args:
        original: ONNX of the original network at this batch size, norms folded, exported
            the way that merged networks will be.
        threads: None takes all cores.
        store: what is in it is not timed again; new measurements go into it at once.

    Raises:
        EngineUnavailable: no such engine, precision or device here.
        BadInput: the engine rejects the original network or one of its own layers.
    """
    opened = open_engine(engine, threads=threads, precision=precision)
    ops = _ops(blueprint)
    work = _Work(opened, batch, Store() if store is None else store)
    work.add(f"network {digest(original)}", lambda: original, 0)
    work.add("empty", partial(empty_graph, batch), 0)
    for op in {op.signature: op for op in ops.values()}.values():
        work.add_op(op)
    times = work.run(sampling, progress)
    e2e = times[f"network {digest(original)}"]
    rows = _rows(blueprint, ops, times, work.rejected)
    return _table(blueprint, rows, e2e, opened, batch, work.rejected)


def _ops(blueprint: Blueprint) -> dict[tuple[Span, bool | None], TimedOp]:
    """(span, act_stop) → its op; act_stop None where one op stands for both."""
    found: dict[tuple[Span, bool | None], TimedOp] = {}
    for span, merged in candidates(blueprint).items():
        bare, closed = (span_op(blueprint, merged, flag) for flag in (False, True))
        if bare == closed or activation_is_free(closed):
            found[span, None] = closed
        else:
            found[span, False], found[span, True] = bare, closed
    return found


class _Work:
    """Graphs to time, by subject; those that the store knows are not timed again."""

    def __init__(self, engine: Engine, batch: int, store: Store) -> None:
        self.engine, self.batch, self.store = engine, batch, store
        self.identity = {**engine.identity, "method": METHOD}
        self.subjects: dict[str, Subject] = {}
        self.times: dict[str, Measurement] = {}
        self.rejected: dict[str, BadInput] = {}

    def add(self, subject: str, graph: Callable[[], bytes], size: int) -> None:
        """`size`: rough memory of the session, in bytes."""
        if subject in self.subjects or subject in self.times:
            return
        known = self.store.get(subject, self.identity, self.batch)
        if known is not None:
            self.times[subject] = known
        else:
            load = _loader(self.engine, graph)
            self.subjects[subject] = Subject(subject, load, size)

    def add_op(self, op: TimedOp) -> None:
        batch = self.batch
        self.add(op.signature, partial(framed_graph, op, batch), _bytes(op, batch))
        for source in frame_sources(op):
            for count in (1, 2):
                graph = partial(frame_graph, source, count, batch)
                size = 8 * batch * math.prod(source.shape)
                self.add(_frame_name(source, count), graph, size)

    def run(self, sampling: Sampling, progress: Progress) -> dict[str, Measurement]:
        def keep(subject: str, measurement: Measurement) -> None:
            self.store.put(subject, self.identity, self.batch, measurement)

        def reject(subject: str, error: BadInput) -> None:
            self.rejected[subject] = error

        if self.subjects:
            self.times |= measure(
                list(self.subjects.values()),
                sampling,
                anchor=Subject("anchor", lambda: self.engine.load(_anchor())),
                rejected=reject,
                done=keep,
                progress=progress,
            )
        for subject, error in self.rejected.items():
            if " > " not in subject:
                raise error
        return self.times


def _loader(engine: Engine, graph: Callable[[], bytes]) -> Callable[[], Any]:
    return lambda: engine.load(graph())


def _frame_name(source: Source, consumers: int) -> str:
    return f"frame {source.label} to {consumers}"


def _anchor() -> bytes:
    """A conv that keeps all cores busy for some tenths of a millisecond."""
    shape = (64, 28, 28)
    conv = ConvSpec(
        in_channels=64, out_channels=64, kernel=(3, 3), padding=((1, 1), (1, 1))
    )
    return plain_graph(
        TimedOp((Source(shape),), (Step("conv", (0,), shape, conv=conv),)), 1
    )


def _bytes(op: TimedOp, batch: int) -> int:
    shapes = [*(s.shape for s in op.sources), *(s.shape for s in op.steps)]
    weights = sum(step.conv.weights for step in op.steps if step.conv)
    return 4 * (batch * sum(map(math.prod, shapes)) + 2 * weights)


def _rows(
    blueprint: Blueprint,
    ops: dict[tuple[Span, bool | None], TimedOp],
    times: dict[str, Measurement],
    rejected: dict[str, BadInput],
) -> pd.DataFrame:
    labels = {s.label: s for op in ops.values() for s in frame_sources(op)}
    once, twice = (
        {k: times[_frame_name(s, n)].median_ms for k, s in labels.items()} for n in (1, 2)
    )
    frames = FrameCosts(times["empty"].median_ms, once, twice)
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
        timed = times[op.signature]
        rows.append(
            {
                "start": span.start,
                "stop": span.stop,
                "latency_ms": round(max(timed.median_ms - frames.of(op), 0.0), 6),
                "spread_ms": round(timed.spread_ms, 6),
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
    engine: Engine,
    batch: int,
    rejected: dict[str, BadInput],
) -> LatencyTable:
    singles_ms = math.fsum(original_rows(blueprint, rows)["latency_ms"])
    limits = blueprint.limits
    header: dict[str, object] = {
        **engine.identity,
        "batch": batch,
        "input": "x".join(map(str, blueprint.input)),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "blueprint": blueprint.digest,
        "max_growth": f"{limits.max_growth:g}",
        "max_weight_mb": f"{limits.max_weight_mb:g}",
        "method": METHOD,
        "e2e_ms": round(e2e.median_ms, 6),
        "e2e_spread_ms": round(e2e.spread_ms, 6),
        "single_layers_ms": round(singles_ms, 6),
        "fixed_ms": round(max(e2e.median_ms - singles_ms, 0.0), 6),
    }
    if rejected:
        header["rejected_ops"] = len(rejected)
    return LatencyTable(rows, {key: str(value) for key, value in header.items()})


def original_rows(blueprint: Blueprint, rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of single layers, each with or without activation as in the original."""
    single = rows[rows["stop"] - rows["start"] == 1]
    if "act_stop" not in rows:
        return single
    closed = single["stop"].map(blueprint.has_activation).astype("Int64")
    return single[single["act_stop"].fillna(closed) == closed]
