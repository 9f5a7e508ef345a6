"""What a planned network really takes, in the frame of a latency table."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from dpcompress.blueprint import Plan
from dpcompress.errors import BadTable
from dpcompress.files import digest
from dpcompress.latency import Store, bench
from dpcompress.pipeline.fidelity import merged_onnx
from dpcompress.runner import NETWORKS, Measurement, Sampling
from dpcompress.tables import LatencyTable

_SAMPLING = replace(NETWORKS, min_rounds=40, max_rounds=160, max_repeats=80)
"""More than usual: of many plans that are tried, those measured too fast get chosen."""


class Trials:
    """Builds and measures the network of a plan: the `measure` of `close_loop`.

    The same machine may be a third slower a minute later. So each network is timed
    interleaved with the original; what counts is the median ratio of the two within
    rounds, times what the table says that the original takes. Ratios are kept in
    `store`, like all measurements: with it, the same plans give the same times.

    now_ms: the original, as it was last measured here; None if all came from the store.

    Args:
        network: the original, with any weights.
        original: its ONNX, norms folded, at the table's batch size.

    Raises:
        BadTable: `table` was not made on this machine, engine and version, or does not
            say what the original takes.
        EngineUnavailable: its engine is not here.
    """

    def __init__(
        self,
        network: nn.Module,
        original: bytes,
        table: LatencyTable,
        store: Store,
        *,
        sampling: Sampling = _SAMPLING,
    ) -> None:
        self._network, self._original, self._store = network, original, store
        self._sampling, self._target = sampling, table.target
        self._identity = self._target.open().identity
        self.then_ms = _original_ms(table, self._identity)
        self.now_ms: float | None = None

    def __call__(self, plan: Plan) -> float:
        """Milliseconds, end to end, while the original takes what the table says."""
        way = digest([plan.boundaries, plan.activations])
        subject = f"plan {way} of {plan.blueprint} per ms of {digest(self._original)}"
        known = self._store.get(subject, self._identity, self._target.batch)
        if known is None:
            known = self._measured(plan)
            self._store.put(subject, self._identity, self._target.batch, known)
        return known.median_ms * self.then_ms

    def _measured(self, plan: Plan) -> Measurement:
        """Its time per millisecond of the original, from rounds in which both ran."""
        times = bench(
            {
                "original": self._original,
                "planned": merged_onnx(self._network, plan, self._target.batch),
            },
            self._target,
            sampling=self._sampling,
        )
        original, planned = times["original"], times["planned"]
        self.now_ms = original.median_ms
        rounds = zip(planned.windows_ms, original.windows_ms, strict=True)
        return Measurement.of([a / b for a, b in rounds], planned.disturbed)


def _original_ms(table: LatencyTable, identity: dict[str, str]) -> float:
    differ = [key for key, value in identity.items() if table.header.get(key) != value]
    if differ:
        raise BadTable(
            f"it was made on another machine or engine ({', '.join(differ)} differ), so "
            "that nothing measured here can correct it.",
            "Measure where it was made, or make it again here.",
            path=table.source,
        )
    if table.original_ms is None:
        raise BadTable(
            "it does not say what the original network takes.",
            "Make it with: dpcompress profile MODEL -o T.csv",
            path=table.source,
            column="e2e_ms",
        )
    return table.original_ms
