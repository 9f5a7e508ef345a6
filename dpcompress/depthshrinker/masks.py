"""Learnable masks in a traced network, with straight-through gradients (Fu et al. 2022).

The k masks of the highest scores are 1, and their activations work; the others are 0, and
their activations are the identity. The gradient treats the hard mask as the score itself.
"""

from __future__ import annotations

import torch
from torch import Tensor, fx, nn

from dpcompress.depthshrinker.groups import Group
from dpcompress.graph.capture import capture
from dpcompress.graph.edit import free_name
from dpcompress.graph.nodes import op_nodes

# Scores are recorded 101 times: at 0 %, 1 %, ... 100 % of a search.
MOMENTS = 101


class Masks(nn.Module):
    """The masks of a network; calling it, without input, gives their hard values.

    scores: (masks,), trained.
    keep: how many are on.
    history: (MOMENTS, masks), the scores at each moment. It is part of the state, so that
        an interrupted search keeps it.
    """

    history: Tensor

    def __init__(self, count: int) -> None:
        super().__init__()
        self.scores = nn.Parameter(torch.zeros(count))
        self.keep = count
        self.register_buffer("history", torch.zeros(MOMENTS, count))

    def on(self) -> list[int]:
        """List the masks that are on; of equal scores, the first ones."""
        return top(self.scores.detach(), self.keep)

    def forward(self) -> Tensor:
        """Return 1 or 0 for each mask, with the gradient of the scores."""
        hard = torch.zeros_like(self.scores)
        hard[self.on()] = 1.0
        return hard + (self.scores - self.scores.detach())  # adds exactly 0

    def record(self, done: float) -> None:
        """Keep the scores as those at the fraction `done` of the search."""
        moment = round(done * (MOMENTS - 1))
        self.history[moment:] = self.scores.detach()


def top(scores: Tensor, keep: int) -> list[int]:
    """List the indices of the `keep` highest scores; of equal ones, the first."""
    order = torch.sort(scores, descending=True, stable=True).indices
    return sorted(order[:keep].tolist())


def mix(activated: Tensor, plain: Tensor, masks: Tensor, index: int) -> Tensor:
    """Compute m·σ(x) + (1 − m)·x, which is exactly σ(x) or x for a hard mask."""
    mask = masks[index]
    return mask * activated + (1 - mask) * plain


def insert_masks(
    model: nn.Module, input_shape: tuple[int, int, int], groups: tuple[Group, ...]
) -> tuple[fx.GraphModule, Masks]:
    """Copy `model` with masks on the activations in `groups`, one per group.

    All masks are on at first, so that the copy computes the same. Its parameters keep
    their names.

    Returns:
        The copy, trainable, and its masks.
    """
    captured = capture(model, input_shape)
    network, layers = captured.network, captured.blueprint.layers
    masks = Masks(len(groups)).to(next(network.parameters()).dtype)
    name = free_name(network, "masks")
    network.add_submodule(name, masks)
    nodes = op_nodes(network)
    first = next(n for n in network.graph.nodes if n.op != "placeholder")
    with network.graph.inserting_before(first):
        values = network.graph.call_module(name)
    for index, group in enumerate(groups):
        for position in group:
            act = layers[position - 1].act
            assert act is not None
            node = nodes[act]
            (source,) = node.all_input_nodes
            with network.graph.inserting_after(node):
                mixed = network.graph.call_function(mix)
            node.replace_all_uses_with(mixed)
            mixed.args = (node, source, values, index)
    network.graph.lint()
    network.recompile()
    return network.train(model.training), masks
