"""From ONNX bytes to a torch network, for images and fixed shapes."""

from __future__ import annotations

from onnx import ModelProto, numpy_helper
from torch import fx

from dpcompress.errors import BadInput
from dpcompress.onnxio.model import input_shapes, parse
from dpcompress.onnxio.network import Network
from dpcompress.onnxio.operators import convert

_OLDEST_OPSET = 13


def read(data: bytes) -> fx.GraphModule:
    """Build the network that an ONNX graph describes, in eval mode.

    Convolutions, norms, activations, poolings and fully connected layers become torch's
    modules, named after their ONNX nodes; other operators become calls of functions.

    Returns:
        A module that takes the graph's inputs and returns the tuple of its outputs, both
        in the graph's order.

    Raises:
        BadInput: `data` is not ONNX or of an opset before 13, an input's shape is open,
            or an operator is not known here; names it.
    """
    model = parse(data)
    _require_opset(model)
    graph = model.graph
    network = Network({c.name: numpy_helper.to_array(c) for c in graph.initializer})
    for name in input_shapes(model):
        network.input(name)
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            value = numpy_helper.to_array(node.attribute[0].t)
            network.constants[node.output[0]] = value
        else:
            network.values[node.output[0]] = convert(node, network)
    return network.finish([output.name for output in graph.output])


def _require_opset(model: ModelProto) -> None:
    """Refuse opsets in which operators meant something else, as Softmax did."""
    versions = [o.version for o in model.opset_import if o.domain in ("", "ai.onnx")]
    if versions and max(versions) < _OLDEST_OPSET:
        raise BadInput(
            f"The ONNX graph is of opset {max(versions)}; torch reads {_OLDEST_OPSET} "
            "and newer here.",
            "Export it again with a newer opset, or take another engine.",
        )
