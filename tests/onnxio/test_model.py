import onnx
import pytest
from onnx import TensorProto, helper

from dpcompress.errors import BadInput
from dpcompress.onnxio.model import fault, input_shapes, parse
from dpcompress.onnxio.write import Graph


def test_inputs_are_named_with_their_shapes() -> None:
    graph = Graph("x", 2)
    tensor = graph.add("Add", [graph.input((3, 4, 5)), graph.input((1, 1, 5))])
    data = graph.finish({tensor: (3, 4, 5)})
    assert input_shapes(parse(data)) == {"input0": (2, 3, 4, 5), "input1": (2, 1, 1, 5)}
    assert fault(data) is None


def test_an_open_shape_is_refused() -> None:
    info = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3])
    model = helper.make_model(helper.make_graph([], "g", [info], [info]))
    with pytest.raises(BadInput, match="Input x of the graph has no fixed shape"):
        input_shapes(model)


@pytest.mark.parametrize("data", [b"", b"not a graph"])
def test_what_is_no_model_is_refused(data: bytes) -> None:
    with pytest.raises(BadInput, match="no ONNX graph"):
        parse(data)


def test_a_fault_is_one_line() -> None:
    node = helper.make_node("Relu", ["nowhere"], ["y"])
    info = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    broken = helper.make_model(helper.make_graph([node], "g", [], [info]))
    found = fault(broken)
    assert found is not None and "nowhere" in found and "\n" not in found
    assert fault(onnx.ModelProto()) is not None
