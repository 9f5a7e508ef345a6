"""From measurements of a workload, wherever they were made, to the latency table."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime

import pandas as pd

from dpcompress.blueprint import Blueprint
from dpcompress.errors import BadInput
from dpcompress.files import digest
from dpcompress.latency.frames import method
from dpcompress.latency.workload import Workload
from dpcompress.runner import Measurement
from dpcompress.tables import Key, LatencyTable


def build_table(
    work: Workload,
    original: str,
    times: Mapping[str, Measurement],
    rejected: Mapping[str, BadInput],
    identity: Mapping[str, str],
) -> LatencyTable:
    """Build the table of a workload.

    Args:
        original: the subject that is the whole original network.
        times, rejected: by subject; `original` and each of `work.graphs` is in one of
            them.
        identity: the engine's identity and notes.

    Raises:
        BadInput: the original, a frame or a single layer was rejected.
    """
    signatures = {framed.program.signature for framed in work.programs.values()}
    for subject, error in rejected.items():
        if subject not in signatures:
            raise error
    rows = _rows(work, times, rejected)
    single = LatencyTable(rows).span_times(work.blueprint)
    singles_ms = math.fsum(ms for span, ms in single.items() if span.length == 1)
    whole, limits = times[original], work.blueprint.limits
    header: dict[str, object] = {
        **identity,
        "method": method(work.most_copies),
        "batch": work.batch,
        "input": "x".join(map(str, work.blueprint.input)),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "blueprint": work.blueprint.digest,
        "max_growth": f"{limits.max_growth:g}",
        "max_weight_mb": f"{limits.max_weight_mb:g}",
        "e2e_ms": round(whole.median_ms, 6),
        "e2e_spread_ms": round(whole.spread_ms, 6),
        "single_layers_ms": round(singles_ms, 6),
        "fixed_ms": round(max(whole.median_ms - singles_ms, 0.0), 6),
    }
    if rejected:
        header["rejected_ops"] = "; ".join(sorted(rejected))
    return LatencyTable(rows, {key: str(value) for key, value in header.items()})


def _rows(
    work: Workload,
    times: Mapping[str, Measurement],
    rejected: Mapping[str, BadInput],
) -> pd.DataFrame:
    """A row for each program that was timed; one for both values of `act_stop` where they
    share a program."""
    frames_ms = {
        frame: times[frame.name].median_ms
        for framed in work.programs.values()
        for frame in framed.frames
    }
    rows = []
    for key, framed in work.programs.items():
        signature = framed.program.signature
        shared = work.programs[key._replace(act_stop=not key.act_stop)] == framed
        if shared and not key.act_stop:
            continue
        if signature in rejected:
            _require_longer(work.blueprint, key, rejected[signature])
            continue
        timed = times[signature]
        own_ms = framed.own_ms(timed.median_ms, frames_ms)
        rows.append(
            {
                "start": key.start,
                "stop": key.stop,
                "way": key.way,
                "latency_ms": round(max(own_ms, 0.0), 6),
                "spread_ms": round(timed.spread_ms / framed.copies, 6),
                "op": digest(signature.encode()),
                "samples": timed.samples,
                "act_stop": pd.NA if shared else int(key.act_stop),
                "signature": signature,
            }
        )
    frame = pd.DataFrame(rows)
    if frame["act_stop"].isna().all():
        return frame.drop(columns="act_stop")
    return frame.astype({"act_stop": "Int64"})


def _require_longer(blueprint: Blueprint, key: Key, error: BadInput) -> None:
    """Raise if the rejected span is a single layer, which no plan can do without."""
    if key.span.length > 1:
        return
    layer = blueprint.ops[blueprint.layers[key.stop - 1].conv]
    raise BadInput(
        f"Layer {key.stop} ({layer.name}) cannot be measured: {error.message}",
        error.remedy,
    ) from error
