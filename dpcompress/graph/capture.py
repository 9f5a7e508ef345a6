"""Capturing a model as a flat torch.fx graph in normal form, one Blueprint op per node.

Convolution, norm, activation and pooling modules are leaves. A submodule that cannot be
traced into stays a leaf, too, and becomes a barrier. The captured graph is compared with
the model itself before anything is built on it.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

from dpcompress.blueprint import Blueprint, Limits, Op, find_chains
from dpcompress.errors import BadInput, UntraceableModel, first_line
from dpcompress.graph.describe import describe
from dpcompress.graph.handlers import IDENTITY_NAMES, is_fixed_norm
from dpcompress.graph.normal_form import normalize

_BATCH = 2


@dataclass(frozen=True)
class Captured:
    """The copy of a model as a graph, and the Blueprint that describes it.

    `nodes.op_nodes` finds the nodes of the Blueprint's ops in `network`.
    """

    network: fx.GraphModule
    blueprint: Blueprint


class _Tracer(fx.Tracer):
    def __init__(self, leaves: dict[str, str]) -> None:
        super().__init__()
        self.leaves = leaves
        self.failed: tuple[str, str] | None = None

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return (
            module_qualified_name in self.leaves
            or isinstance(m, nn.Conv2d | nn.modules.batchnorm._BatchNorm)
            or type(m).__name__ in IDENTITY_NAMES
            or is_fixed_norm(m)
            or super().is_leaf_module(m, module_qualified_name)
        )

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        try:
            path = self.path_of_module(m)
        except NameError:  # made on the fly, as the slices of a Sequential are
            return forward(*args, **kwargs)
        before = dict(vars(m))
        try:
            result = super().call_module(m, forward, args, kwargs)
            _require_nothing_kept(m, before)
            return result
        except Exception as error:
            if self.failed is None:  # the innermost module is the one to blame
                self.failed = (path, first_line(error))
            raise


def capture(
    model: nn.Module, input_shape: tuple[int, int, int], limits: Limits | None = None
) -> Captured:
    """Trace a copy of `model` in eval mode for inputs of `input_shape` = (C, H, W).

    Raises:
        UntraceableModel: several inputs or outputs, control flow that depends on the
            data outside any submodule, no convolution, or a graph that computes
            something else than the model.
        BadInput: the model does not accept an input of this shape, or makes NaN of it.
    """
    if len(input_shape) != 3 or min(input_shape) < 1:
        raise BadInput(f"{input_shape} is not an input shape.", "Give (C, H, W).")
    _require_readable(model)
    root = _copied(model).cpu().eval()
    wide = any(p.dtype == torch.float64 for p in root.parameters())
    root = root.double() if wide else root.float()
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(_BATCH, *input_shape, generator=generator)
    images = images.double() if wide else images
    expected = _run(root, images)
    graph, leaves = _trace(root)
    network = fx.GraphModule(root, graph)
    normalize(network)
    shapes = _shapes(network, images)
    outputs = [n for n in network.graph.nodes if n.op == "output"]
    if not isinstance(outputs[0].args[0], fx.Node):
        raise UntraceableModel(
            f"{type(model).__name__} returns several tensors.",
            "Wrap it in a module that returns the one that counts.",
        )
    ops, index = describe(network, shapes, leaves)
    for node, number in index.items():
        node.meta["op"] = number
    layers, chains = find_chains(ops)
    if not layers:
        raise _no_convolution(model, leaves | left_alone(network, ops))
    with torch.no_grad():
        actual = network(images)
    if not torch.allclose(actual, expected, rtol=0, atol=1e-4 * _scale(expected)):
        raise UntraceableModel(
            f"The traced graph of {type(model).__name__} computes something else than "
            "the model: it changes a tensor in place, or it is random.",
            "Replace in-place operations on tensors that are used again.",
        )
    blueprint = Blueprint(
        input=input_shape,
        output=index[outputs[0].args[0]],
        ops=tuple(ops),
        layers=layers,
        chains=chains,
        limits=limits or Limits(),
    )
    return Captured(network, blueprint)


def left_alone(network: nn.Module, ops: Iterable[Op]) -> dict[str, str]:
    """Find the 2-d convolutions of `network` that are no layers, each with the reason."""
    convs = {n for n, m in network.named_modules() if isinstance(m, nn.Conv2d)}
    return {op.name: op.why for op in ops if op.kind == "opaque" and op.name in convs}


def _no_convolution(model: nn.Module, reasons: dict[str, str]) -> UntraceableModel:
    causes = "; ".join(f"{path}: {why}" for path, why in reasons.items())
    return UntraceableModel(
        f"{type(model).__name__} has no convolution that could merge"
        + (f" ({causes})." if causes else "."),
        "dpcompress compresses networks of 2-d convolutions.",
    )


def _require_readable(model: nn.Module) -> None:
    if isinstance(model, torch.jit.ScriptModule):
        raise UntraceableModel(
            f"{type(model).__name__} is a compiled script.",
            "Give the module that it was made from.",
        )
    for path, values in model.named_parameters():
        if nn.parameter.is_lazy(values) or values.is_meta:
            raise BadInput(
                f"{path} of {type(model).__name__} has no values yet.",
                "Load its weights; a lazy module gets its own when it is called once.",
            )


def _copied(model: nn.Module) -> nn.Module:
    try:
        return copy.deepcopy(model)
    except Exception as error:  # what cannot be copied raises whatever it likes
        raise UntraceableModel(
            f"{type(model).__name__} cannot be copied: {first_line(error)}.",
            "Remove hooks that compute weights, such as the old weight_norm "
            "(torch.nn.utils.remove_weight_norm).",
        ) from error


def _scale(tensor: torch.Tensor) -> float:
    return float(tensor.abs().max().clamp_min(1e-6))


def _run(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    parameters = [
        p
        for p in inspect.signature(model.forward).parameters.values()
        if p.default is p.empty
        and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    ]
    if not parameters:
        raise UntraceableModel(
            f"{type(model).__name__}.forward does not name its input.",
            "Give the network itself, not a wrapper around it (.module, ._orig_mod).",
        )
    if len(parameters) != 1:
        raise UntraceableModel(
            f"{type(model).__name__} takes {len(parameters)} inputs, not one image.",
            "Wrap it in a module whose forward takes the image alone.",
        )
    try:
        with torch.no_grad():
            output = model(images)
    except Exception as error:  # whatever the model's own code raises
        shape = "x".join(map(str, images.shape[1:]))
        raise BadInput(
            f"{type(model).__name__} does not accept an input of {shape}: "
            f"{first_line(error)}.",
            "Choose another size with --input CxHxW.",
        ) from error
    if not isinstance(output, torch.Tensor):
        raise UntraceableModel(
            f"{type(model).__name__} returns a {type(output).__name__}, not one tensor.",
            "Wrap it in a module that returns the one that counts.",
        )
    if output.isnan().any():
        raise BadInput(
            f"{type(model).__name__} gives an output that is not a number on random "
            "images.",
            "Check its weights.",
        )
    return output


def _trace(root: nn.Module) -> tuple[fx.Graph, dict[str, str]]:
    """Trace `root`; return the graph and the submodules that had to stay leaves, each
    with the reason."""
    parameters = list(inspect.signature(root.forward).parameters.values())
    fixed = {p.name: p.default for p in parameters if p.default is not p.empty}
    leaves: dict[str, str] = {}
    while True:
        tracer, before = _Tracer(leaves), dict(vars(root))
        try:
            graph = tracer.trace(root, concrete_args=fixed or None)
            _require_nothing_kept(root, before)
            return graph, leaves
        except Exception as error:  # whatever the model's own code raises on a proxy
            if tracer.failed is None or tracer.failed[0] in leaves:
                raise UntraceableModel(
                    f"{type(root).__name__}.forward cannot be traced: "
                    f"{first_line(error)}.",
                    "Move what depends on the data into a submodule of its own; it "
                    "will be left as it is.",
                ) from error
            leaves[tracer.failed[0]] = f"cannot be traced: {tracer.failed[1]}"


def _require_nothing_kept(module: nn.Module, before: dict[str, Any]) -> None:
    """Raise ValueError if tracing `module` stored a tensor in it, which a graph would not
    do; `before` are its attributes from before, and are restored."""
    for name, value in list(vars(module).items()):
        if isinstance(value, fx.Proxy):
            setattr(module, name, before.get(name))
        elif isinstance(value, list) and any(isinstance(v, fx.Proxy) for v in value):
            value[:] = [v for v in value if not isinstance(v, fx.Proxy)]
        elif isinstance(value, dict) and any(
            isinstance(v, fx.Proxy) for v in value.values()
        ):
            for key in [k for k, v in value.items() if isinstance(v, fx.Proxy)]:
                del value[key]
        else:
            continue
        raise ValueError(f"it keeps a tensor in its attribute {name!r}")


def _shapes(
    network: fx.GraphModule, images: torch.Tensor
) -> dict[fx.Node, tuple[int, ...]]:
    shapes: dict[fx.Node, tuple[int, ...]] = {}

    class Recorder(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            value = super().run_node(n)
            is_image = isinstance(value, torch.Tensor) and value.ndim > 0
            shapes[n] = tuple(value.shape[1:]) if is_image else ()
            return value

    with torch.no_grad():
        Recorder(network).run(images)
    return shapes
