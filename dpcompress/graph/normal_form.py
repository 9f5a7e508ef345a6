"""Rewriting a traced graph so that one operation is written in one way.

Activations become module calls, sums operator.add, in-place operations ordinary ones, and
timm's fused norm-activations a norm and an activation.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx, nn

from dpcompress.graph.activations import ADD_METHODS, ADDITIONS, activation_of_call
from dpcompress.graph.edit import free_name, insert_module


def normalize(network: fx.GraphModule) -> None:
    """Bring `network`'s graph into normal form, in place.

    The network's function stays the same, unless a tensor is read again after it was
    changed in place. `capture` notices the difference and refuses the model.
    """
    modules = dict(network.named_modules(remove_duplicate=False))
    for module in modules.values():
        if getattr(module, "inplace", False) is True:
            module.inplace = False  # type: ignore[assignment]
    for node in list(network.graph.nodes):
        if node.op == "call_module":
            module = modules[node.target]
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                _split_norm_activation(network, node, module)
        elif node.op in ("call_function", "call_method"):
            _replace_call(network, node)
    network.graph.eliminate_dead_code()
    network.graph.lint()
    network.recompile()


def _replace_call(network: fx.GraphModule, node: fx.Node) -> None:
    module = activation_of_call(node.target, node.args, dict(node.kwargs))
    source = node.args[0] if node.args else node.kwargs.get("input")
    if module is not None and isinstance(source, fx.Node):
        insert_module(network, node, module, source)
    elif (
        node.target in (ADDITIONS if node.op == "call_function" else ADD_METHODS)
        and len(node.args) == 2
        and not node.kwargs
    ):
        node.op, node.target = "call_function", operator.add
        if 0 in node.args:  # sums that start from nothing, as in MobileOne
            node.replace_all_uses_with(node.all_input_nodes[0])
            network.graph.erase_node(node)
    elif isinstance(node.target, str) and hasattr(torch.Tensor, node.target[:-1]):
        node.target = node.target.removesuffix("_")


def _split_norm_activation(
    network: fx.GraphModule, node: fx.Node, module: nn.Module
) -> None:
    """Split a norm with children `drop` and `act`, such as timm's BatchNormAct2d."""
    if type(module).__name__ not in ("BatchNormAct2d", "SyncBatchNormAct"):
        return
    fused: Any = module
    norm = nn.BatchNorm2d(
        fused.num_features,
        eps=fused.eps,
        momentum=fused.momentum,
        affine=fused.affine,
        track_running_stats=fused.track_running_stats,
    ).eval()
    norm.weight, norm.bias = fused.weight, fused.bias
    for name, buffer in module.named_buffers(recurse=False):
        setattr(norm, name, buffer)
    children: list[tuple[str, nn.Module]] = [
        (name, child)
        for name, child in (("drop", fused.drop), ("act", fused.act))
        if not isinstance(child, nn.Identity)
    ]
    network.add_submodule(str(node.target), norm)
    last = node
    for suffix, child in children:
        name = free_name(network, f"{node.name}_{suffix}")
        network.add_submodule(name, child)
        with network.graph.inserting_after(last):
            new = network.graph.call_module(name, (node,))
        last.replace_all_uses_with(new)
        new.args = (last,)
        last = new
