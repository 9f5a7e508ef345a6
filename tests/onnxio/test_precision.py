"""Graphs in float16, against the same graph in float32, run by ONNX Runtime."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from dpcompress.errors import BadInput
from dpcompress.exporters import export
from dpcompress.latency.frames import Frame
from dpcompress.onnxio.precision import in_precision, to_float16
from dpcompress.ways.program import Source


def run(graph: bytes, value: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        graph, options, providers=["CPUExecutionProvider"]
    )
    (node,) = session.get_inputs()
    kind = {"tensor(float16)": np.float16, "tensor(float)": np.float32}[node.type]
    return np.asarray(session.run(None, {node.name: value.astype(kind)})[0])


class Resizing(nn.Module):
    """Resize takes its scales in float32 whatever it computes in."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = nn.functional.interpolate(nn.functional.relu6(self.conv(x)), scale_factor=2.0)
        return x.mean((2, 3))


def test_same_numbers_to_eleven_bits() -> None:
    torch.manual_seed(0)
    graph = export(Resizing(), (3, 8, 8), batch=2)
    half = to_float16(graph)
    value = np.random.default_rng(0).standard_normal((2, 3, 8, 8), dtype=np.float32)
    wanted, found = run(graph, value), run(half, value)
    assert found.dtype == np.float16
    assert np.abs(found - wanted).max() < 5e-3 * np.abs(wanted).max()
    assert len(half) < 0.8 * len(graph)
    assert to_float16(half) == half


def test_graphs_that_are_measured_have_a_copy() -> None:
    for readers in (1, 2):
        graph = Frame((Source((8, 5, 5)),), readers).graph(2)
        body = onnx.load_from_string(in_precision(graph, "fp16")).graph
        kinds = {v.type.tensor_type.elem_type for v in (*body.input, *body.output)}
        assert kinds == {TensorProto.FLOAT16}
        assert in_precision(graph, "tf32") == in_precision(graph, "fp32") == graph


def _scaled(factor: float, operator: str = "Mul") -> bytes:
    def info(name: str) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, [2])

    weight = numpy_helper.from_array(np.full(2, factor, np.float32), "w")
    nodes = [helper.make_node(operator, ["x", "w"], ["y"])]
    graph = helper.make_graph(nodes, "g", [info("x")], [info("y")], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    return bytes(model.SerializeToString())


def test_what_float16_cannot_hold_is_refused() -> None:
    assert run(to_float16(_scaled(6e4)), np.ones(2))[0] == 6e4
    with pytest.raises(BadInput, match="weights w reach 7e.04; float16 ends at 65504"):
        to_float16(_scaled(7e4))
    with pytest.raises(BadInput, match="no ONNX graph"):
        to_float16(_scaled(1)[:40] + b"\xff\xff")
    with pytest.raises(BadInput, match="cannot be written in float16: .*Bitwise"):
        to_float16(_scaled(1, "BitwiseAnd"))
