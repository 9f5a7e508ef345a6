"""Building the network that a plan deploys, before any training."""

from __future__ import annotations

from torch import fx, nn

from dpcompress.blueprint import Plan
from dpcompress.graph.linearize import linearize
from dpcompress.graph.merge import merge_unchecked


def build(model: nn.Module, plan: Plan) -> fx.GraphModule:
    """Merge the linearized network of `plan` with the weights of `model`, unchecked.

    Its shapes and its speed are those of the trained one; what it computes is not what
    `model` computes. `keep_everything` gives `model` itself, norms folded.

    Returns:
        A network in eval mode, float32, on the CPU.

    Raises:
        IllegalMerge: as `linearize`.
    """
    return merge_unchecked(linearize(model, plan)).float()
