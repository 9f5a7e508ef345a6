"""The methods that are compared, one line each in METHODS.

A method chooses the shape of a network for a share of the original's time, and makes the
trained network of that shape, as it is deployed.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from torch import Tensor, nn

from dpcompress.blueprint import Plan
from dpcompress.cli.output import progress_bar
from dpcompress.depthshrinker import By, finetune_fading
from dpcompress.graph import fit_merged, linearize, merge, with_norms, without_norms
from dpcompress.importance import calibration_images
from dpcompress.solver import solve, spread_plans
from dpcompress.training import Recipe, finetune
from experiments.cifar10.context import Channels, Context, Shape

_DRAWN = 60
"""Random plans, evenly spread over all speeds, of which the nearest is taken."""


class Job(NamedTuple):
    """A network to be trained: its shape, the seed, a file for checkpoints."""

    context: Context
    shape: Shape
    seed: int
    checkpoint: Path

    @property
    def recipe(self) -> Recipe:
        """The same for all methods."""
        return self.context.config.recipe.model_copy(update={"seed": self.seed})


# Shapes: (context, share of the original's time, seed) → shape.


def as_it_is(context: Context, share: float, seed: int) -> Shape:
    return None


def best_plan(estimator: str, context: Context, share: float, seed: int) -> Plan:
    latency = context.latency
    frontier = solve(latency, context.importance(estimator))
    return frontier.at(share * (latency.original_ms or 0))


def random_plan(context: Context, share: float, seed: int) -> Plan:
    latency = context.latency
    wanted = share * (latency.original_ms or 0)
    plans = spread_plans(context.blueprint, latency, _DRAWN, seed)
    return min(plans, key=lambda plan: abs((plan.predicted_ms or 0) - wanted))


def shrunk_plan(by: By, context: Context, share: float, seed: int) -> Plan:
    budget_ms = share * (context.latency.original_ms or 0)
    return context.ranking(by).plan(context.blueprint, context.latency, budget_ms)


def narrowed(context: Context, share: float, seed: int) -> Channels:
    """Time is about proportional to the width, between its first and second power."""
    return Channels(how="narrowed", share=round(share, 3))


def pruned(context: Context, share: float, seed: int) -> Channels:
    return Channels(how="pruned", share=round(share, 3))


# Training: job → network as it is deployed.


def untrained(job: Job) -> nn.Module:
    return job.context.build(job.shape)


def as_deployed(job: Job) -> nn.Module:
    """The network that runs later is the one that is trained."""
    network = (
        job.context.build(job.shape) if job.shape else copy.deepcopy(job.context.original)
    )
    return _trained(network, job)


def linearized(job: Job) -> nn.Module:
    assert isinstance(job.shape, Plan)
    network = linearize(job.context.original, job.shape)
    return merge(_trained(network, job))[0]


def fitted(job: Job) -> nn.Module:
    network: nn.Module = fit_merged(job.context.original, job.shape, _unlabelled(job))[0]
    return network


def faded(job: Job) -> nn.Module:
    """DepthShrinker: the removed activations fade during the first half."""
    assert isinstance(job.shape, Plan)
    context = job.context
    with progress_bar("Train") as progress:
        network = finetune_fading(
            *(context.original, job.shape, context.data, job.recipe),
            checkpoint=job.checkpoint,
            progress=progress,
        )
    return merge(network)[0]


def fitted_and_trained(job: Job) -> nn.Module:
    network = fitted(job)
    with_norms(network, _unlabelled(job))
    _trained(network, job)
    without_norms(network)
    return network


def _unlabelled(job: Job) -> Tensor:
    context = job.context
    return calibration_images(context.data, context.config.calibration_images)


def _trained(network: nn.Module, job: Job) -> nn.Module:
    """The original teaches all but itself."""
    context = job.context
    network.requires_grad_(True)
    with progress_bar("Train") as progress:
        finetune(
            network,
            context.data,
            job.recipe,
            teacher=context.original if job.shape is not None else None,
            checkpoint=job.checkpoint,
            validate=False,
            progress=progress,
        )
    return network.eval()


SHAPES: dict[str, Callable[[Context, float, int], Shape]] = {
    "original": as_it_is,
    "random": random_plan,
    "width": narrowed,
    "pruned": pruned,
    "dp-finetune": partial(best_plan, "finetune"),
    "dp-fit": partial(best_plan, "fit"),
    "shrink-block": partial(shrunk_plan, "block"),
    "shrink-activation": partial(shrunk_plan, "activation"),
}
SEEDED = {"random"}
"""Shapes that depend on the seed."""
PREPARED: dict[str, Callable[[Context], object]] = {
    "dp-finetune": lambda context: context.importance("finetune"),
    "dp-fit": lambda context: context.importance("fit"),
    "shrink-block": lambda context: context.ranking("block"),
    "shrink-activation": lambda context: context.ranking("activation"),
}
"""What shapes need that takes long but may be made on a busy machine."""

METHODS: dict[str, tuple[str, Callable[[Job], nn.Module]]] = {
    "original": ("original", untrained),
    "original, trained on": ("original", as_deployed),
    "random plan": ("random", linearized),
    "width": ("width", as_deployed),
    "channel pruning": ("pruned", as_deployed),
    "DepthShrinker by block": ("shrink-block", faded),
    "DepthShrinker by activation": ("shrink-activation", faded),
    "two-stage DP (finetune, linearized)": ("dp-finetune", linearized),
    "two-stage DP (finetune, merged)": ("dp-finetune", fitted_and_trained),
    "two-stage DP (fit, linearized)": ("dp-fit", linearized),
    "two-stage DP (fit, merged)": ("dp-fit", fitted_and_trained),
    "training-free": ("dp-fit", fitted),
}
