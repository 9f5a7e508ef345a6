"""The closed loop of `solve --measure`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dpcompress.cli.output import console, progress_bar
from dpcompress.errors import BadTable

if TYPE_CHECKING:
    from dpcompress.blueprint import Plan
    from dpcompress.pipeline.closed_loop import Loop
    from dpcompress.solver import Frontier
    from dpcompress.tables import LatencyTable

_DRIFT = 0.1


def measured_plan(
    frontier: Frontier,
    budget_ms: float,
    times: LatencyTable,
    model: str,
    model_args: dict[str, Any],
) -> tuple[Plan, Loop]:
    """The most important plan that is measured to fit, and how it was found.

    Says so if this machine is now much faster or slower than `times` tells.
    """
    import torch

    from dpcompress.blueprint import keep_everything
    from dpcompress.graph import trace
    from dpcompress.latency import Store
    from dpcompress.latency.store import default_path
    from dpcompress.models import load_model
    from dpcompress.pipeline.closed_loop import close_loop
    from dpcompress.pipeline.fidelity import merged_onnx
    from dpcompress.pipeline.trials import Trials

    if times.input is None:
        raise BadTable(
            "it does not say which input size it is for.",
            "Make it with: dpcompress profile MODEL -o T.csv",
            path=times.source,
            column="input",
        )
    torch.manual_seed(0)  # the same graphs each time: they need not be measured again
    network = load_model(model, None, model_args)
    blueprint = trace(network, times.input)
    times.require(blueprint.digest)
    batch = times.target.batch
    original = merged_onnx(network, keep_everything(blueprint), batch)
    with Store(default_path()) as store, progress_bar("Measure") as progress:
        trials = Trials(network, original, times, store)
        plan, loop = close_loop(frontier, budget_ms, trials, progress=progress)
    slower = (trials.now_ms or trials.then_ms) / trials.then_ms - 1
    if abs(slower) > _DRIFT:
        console.print(
            f"The original takes {trials.now_ms:.4g} ms now, {abs(slower):.0%} "
            f"{'more' if slower > 0 else 'less'} than in {times.source}: times and a "
            "budget in ms are of then.",
            style="yellow",
        )
    return plan, loop
