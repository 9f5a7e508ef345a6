"""Every operator that is read, against the examples of the ONNX standard itself."""

from __future__ import annotations

import warnings

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from dpcompress.errors import BadInput
from dpcompress.onnxio.operators import CONVERTERS
from dpcompress.onnxio.read import read

# Read from constants in exported networks, but given as inputs in the examples.
WITHOUT_EXAMPLE = {"Clip", "Pad", "ReduceMean", "Reshape"}


@pytest.mark.slow
def test_an_example_is_computed_as_it_says_or_refused() -> None:
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cases = {case.name: case for case in collect_testcases(None)}
    computed = set()
    for case in cases.values():
        nodes = [] if case.model is None else case.model.graph.node
        if len(nodes) != 1 or nodes[0].op_type not in CONVERTERS:
            continue
        for inputs, outputs in case.data_sets:
            if np.asarray(inputs[0]).dtype != np.float32:
                continue
            try:
                network = read(case.model.SerializeToString())
            except BadInput:
                continue
            found = network(*(torch.from_numpy(np.array(value)) for value in inputs))
            for ours, wanted in zip(found, outputs, strict=False):
                assert tuple(ours.shape) == np.shape(wanted), case.name
                np.testing.assert_allclose(
                    ours.numpy(), wanted, rtol=1e-3, atol=1e-5, err_msg=case.name
                )
            computed.add(nodes[0].op_type)
    assert computed >= CONVERTERS.keys() - WITHOUT_EXAMPLE


def one_node(operator: str, opset: int = 17, **attributes: object) -> bytes:
    x, y = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 3, 4, 5])
        for name in "xy"
    )
    node = helper.make_node(operator, ["x"], ["y"], **attributes)
    graph = helper.make_graph([node], "graph", [x], [y])
    imports = [helper.make_opsetid("", opset)]
    model: onnx.ModelProto = helper.make_model(graph, opset_imports=imports)
    return model.SerializeToString()


def test_graphs_of_opsets_with_other_meanings_are_refused() -> None:
    for operator in ("Softmax", "Clip"):
        with pytest.raises(BadInput, match=r"opset 11; torch reads 13"):
            read(one_node(operator, opset=11))


def test_a_flattening_from_any_axis_has_two_dimensions() -> None:
    x = torch.randn(2, 3, 4, 5)
    for axis, shape in ((0, (1, 120)), (1, (2, 60)), (3, (24, 5)), (-2, (6, 20))):
        (found,) = read(one_node("Flatten", axis=axis))(x)
        assert torch.equal(found, x.reshape(shape))
