"""Making the linearized form of a plan, which is trained before it is merged."""

from __future__ import annotations

from torch import fx, nn

from dpcompress.blueprint import Blueprint, Plan, check_plan
from dpcompress.errors import IllegalMerge
from dpcompress.graph.activations import free_activation
from dpcompress.graph.apply_frames import apply_frames
from dpcompress.graph.capture import capture
from dpcompress.graph.decay import Decay
from dpcompress.graph.edit import free_name, insert_module
from dpcompress.graph.frames import pad_first, shrink_frames
from dpcompress.graph.nodes import Planned, op_nodes, set_planned


def linearize(
    model: nn.Module, plan: Plan, *, decay: bool = False, own_frames: bool = True
) -> fx.GraphModule:
    """Make a trainable copy of `model` in which every span of `plan` is affine.

    Removed activations are gone, each merged span's padding is moved in front of it,
    inner skips are cropped to fit, and added activations are in place (docs/method.md
    §3). The result is a plain nn.Module; its parameters keep the names that they have in
    `model`. Training it does not change what can be merged: `merge` takes it at any time.

    Args:
        decay: leave a `graph.Decay` in the place of each removed activation, to be faded
            out while training. The state dict stays the same; `merge` refuses the network
            until every one is the identity.
        own_frames: compute on tensors of the original sizes where possible, which makes
            training cheaper; False computes on the larger, padded ones. In eval mode both
            give the same; in training mode only the larger ones' batch statistics include
            the border.

    Raises:
        IllegalMerge: the plan is for another network, or asks for a span that cannot
            become one convolution.
    """
    if plan.input is None:
        raise IllegalMerge(
            "The plan does not say which input size it is for.",
            "Solve again from tables made by dpcompress, or set the plan's input.",
        )
    captured = capture(model, plan.input)
    network, blueprint = captured.network, captured.blueprint
    spans = check_plan(blueprint, plan)
    _remove_activations(network, blueprint, plan, decay)
    for span in spans:
        if span.span.length > 1:
            frames = pad_first(blueprint, span)
            if own_frames:
                frames = shrink_frames(blueprint, span, frames)
            apply_frames(network, blueprint, frames)
    _add_activations(network, blueprint, plan)
    network.graph.eliminate_dead_code()
    network.graph.lint()
    network.recompile()
    network.delete_all_unused_submodules()
    set_planned(network, Planned(blueprint, plan))
    return network.train(model.training)


def _remove_activations(
    network: fx.GraphModule, blueprint: Blueprint, plan: Plan, decay: bool
) -> None:
    """Replace the activations that the plan does not keep by the identity, or by a
    `Decay` to it. Every op keeps a node."""
    nodes = op_nodes(network)
    for position, layer in enumerate(blueprint.layers, 1):
        if layer.act is not None and position not in plan.activations:
            node = nodes[layer.act]
            activation = network.get_submodule(str(node.target))
            gone = Decay(activation) if decay else nn.Identity()
            insert_module(network, node, gone, node.all_input_nodes[0])


def _add_activations(network: fx.GraphModule, blueprint: Blueprint, plan: Plan) -> None:
    nodes = op_nodes(network)
    for position in plan.added_activations:
        out = nodes[blueprint.layers[position - 1].out]
        name = free_name(network, f"added_activation_{position}")
        network.add_submodule(name, free_activation(blueprint))
        with network.graph.inserting_after(out):
            act = network.graph.call_module(name)
        act.meta["added"] = position
        out.replace_all_uses_with(act)
        act.args = (out,)
