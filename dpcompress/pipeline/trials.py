"""Planned networks, built and timed beside the original."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import nn

from dpcompress.blueprint import Plan, keep_everything
from dpcompress.errors import BadTable
from dpcompress.files import digest
from dpcompress.graph import trace
from dpcompress.latency import Store, bench
from dpcompress.models import load_model
from dpcompress.pipeline.closed_loop import Loop, close_loop
from dpcompress.pipeline.whole_networks import merged_onnx
from dpcompress.progress import Progress, silent
from dpcompress.runner import NETWORKS, NetworkTiming, Ratio, ratio
from dpcompress.solver import Frontier
from dpcompress.tables import LatencyTable

# More rounds than usual: to choose among many plans favours those measured too fast.
_TIMING = replace(NETWORKS, min_rounds=40, max_rounds=160, max_disturbed=80)

_DRIFT = 0.1  # a change of the machine's speed that a user should know of


class Trials:
    """Builds and times the network of a plan: the `measure` of `close_loop`.

    The same machine may be a third slower a minute later. So each network is timed
    interleaved with the original; what counts is the median ratio of the two within
    rounds, times what the table says that the original takes. The ratios are kept in
    `store`: with it, the same plans give the same times.

    original_then_ms: what the original took when the table was made.
    original_now_ms: what it took in the latest trial; None if all came from the store.

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
        timing: NetworkTiming = _TIMING,
    ) -> None:
        self._network, self._original, self._store = network, original, store
        self._timing, self._target = timing, table.target
        self._identity = self._target.open().identity
        self._source = table.source
        self.original_then_ms = _original_ms(table, self._identity)
        self.original_now_ms: float | None = None

    def __call__(self, plan: Plan) -> float:
        """Measure a plan: ms, end to end, while the original takes `original_then_ms`."""
        subject = f"plan {plan.digest} per {digest(self._original)}"
        batch = self._target.batch
        known = self._store.get_ratio(subject, self._identity, batch)
        if known is None:
            known = self._measured(plan)
            self._store.put_ratio(subject, self._identity, batch, known)
        return known.median * self.original_then_ms

    def _measured(self, plan: Plan) -> Ratio:
        """The plan's time over the original's, from rounds in which both ran."""
        planned = merged_onnx(self._network, plan, self._target.batch)
        networks = {"original": self._original, "planned": planned}
        times = bench(networks, self._target, timing=self._timing)
        self.original_now_ms = times["original"].median_ms
        return ratio(times["planned"], times["original"])

    @property
    def drift(self) -> str | None:
        """A sentence if the machine is much faster or slower than the table tells."""
        now_ms, then_ms = self.original_now_ms, self.original_then_ms
        if now_ms is None or abs(now_ms / then_ms - 1) <= _DRIFT:
            return None
        return (
            f"The original takes {now_ms:.4g} ms now, {abs(now_ms / then_ms - 1):.0%} "
            f"{'more' if now_ms > then_ms else 'less'} than in {self._source}: times and "
            "a budget in ms are of then."
        )


def measured_plan(
    frontier: Frontier,
    budget_ms: float,
    table: LatencyTable,
    model: str,
    model_args: dict[str, Any],
    *,
    store: Store,
    progress: Progress = silent,
) -> tuple[Plan, Loop, str | None]:
    """Run the closed loop for a model by name; its weights do not matter.

    Returns:
        The most important plan that is measured to be within the budget, how it was
        found, and `Trials.drift`.

    Raises:
        BadTable: `table` does not say its input size, is of another network, or was not
            made here.
        InfeasibleBudget: see `close_loop`.
    """
    if table.input is None:
        raise BadTable(
            "it does not say which input size it is for.",
            "Make it with: dpcompress profile MODEL -o T.csv",
            path=table.source,
            column="input",
        )
    torch.manual_seed(0)  # the same graphs each time: they need not be measured again
    network = load_model(model, None, model_args)
    blueprint = trace(network, table.input)
    table.require(blueprint.digest)
    original = merged_onnx(network, keep_everything(blueprint), table.target.batch)
    trials = Trials(network, original, table, store)
    plan, loop = close_loop(frontier, budget_ms, trials, progress=progress)
    return plan, loop, trials.drift


def _original_ms(table: LatencyTable, identity: dict[str, str]) -> float:
    """Read what the original took when `table` was made; refuse a table of elsewhere."""
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
