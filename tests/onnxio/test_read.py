"""ONNX graphs as torch networks. That they compute the same as on ONNX Runtime is for
tests/latency/test_torch_engine.py."""

import numpy as np
import pytest
import torch
from torch import nn

from dpcompress.errors import BadInput
from dpcompress.exporters import export
from dpcompress.onnxio.read import read
from dpcompress.onnxio.write import Graph
from dpcompress.runner import Target


def small() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False),
        nn.ReLU6(),
        nn.Conv2d(8, 8, 3, groups=8),
        nn.Hardswish(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(8 * 3 * 3, 5),
    ).eval()


def test_layers_become_modules_of_the_same_kind_and_settings() -> None:
    network = read(export(small(), (3, 16, 16), 2))
    found = [part for part in network.modules() if type(part) in map(type, small())]
    wanted = [part for part in small() if not isinstance(part, nn.Flatten)]
    assert [type(part) for part in found] == [type(part) for part in wanted]
    first, depthwise = (part for part in found if isinstance(part, nn.Conv2d))
    assert (first.stride, first.padding, first.bias) == ((2, 2), (1, 1), None)
    assert depthwise.groups == 8 and depthwise.bias is not None
    assert network.training is False and first.weight.requires_grad


def test_gives_the_outputs_of_the_network_that_was_exported() -> None:
    x = torch.randn(2, 3, 16, 16)
    (found,) = read(export(small(), (3, 16, 16), 2))(x)
    torch.testing.assert_close(found, small()(x), rtol=1e-5, atol=1e-6)


def test_reading_draws_no_random_numbers() -> None:
    data = export(small(), (3, 16, 16))
    before = torch.get_rng_state()
    read(data)
    assert torch.equal(torch.get_rng_state(), before)


def test_several_inputs_and_outputs_keep_their_order() -> None:
    graph = Graph("x", 2)
    a, b = graph.input((3, 4, 4)), graph.input((3, 4, 4))
    more, less = graph.add("Add", [a, b]), graph.add("Sub", [a, b])
    network = read(graph.finish({less: (3, 4, 4), more: (3, 4, 4)}))
    x, y = torch.randn(2, 2, 3, 4, 4)
    found = network(x, y)
    assert torch.equal(found[0], x - y) and torch.equal(found[1], x + y)


def test_names_that_torch_cannot_take_are_changed() -> None:
    graph = Graph("x", 1)
    x = graph.input((3, 4, 4))
    for name in ("a.b/c", "a.b/c", "forward", "3"):
        x = graph.add("Relu", [x])
        graph._nodes[-1].name = name
    network = read(graph.finish({x: (3, 4, 4)}))
    names = [name for name, _ in network.named_children()]
    assert names == ["a_b_c", "a_b_c_", "forward_", "3"]
    assert network(torch.ones(1, 3, 4, 4))[0].sum() == 48


@pytest.mark.parametrize("operator", ["Conv", "Gemm"])
def test_weights_that_are_computed(operator: str) -> None:
    """As those of weight-standardised convolutions."""
    graph = Graph("x", 2)
    if operator == "Conv":
        x, out = graph.input((3, 5, 5)), (4, 3, 3)
        weight = graph.add("Relu", [graph.random(4, 3, 3, 3)])
        y = graph.add("Conv", [x, weight], kernel_shape=(3, 3))
    else:
        x, out = graph.input((4,)), (3,)
        y = graph.add("Gemm", [x, graph.add("Relu", [graph.random(4, 3)])])
    data = graph.finish({y: out})
    value = np.random.default_rng(0).standard_normal(
        (2, 3, 5, 5) if operator == "Conv" else (2, 4), dtype=np.float32
    )
    (wanted,) = Target().open().load(data).infer({"input0": value}).values()
    (found,) = read(data)(torch.from_numpy(value))
    np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-4, atol=1e-5)


def test_what_is_not_known_is_named() -> None:
    def one(operator: str, *weights: int, **attributes: object) -> bytes:
        graph = Graph("x", 1)
        inputs = [graph.input((3, 8, 8))]
        if weights:
            inputs.append(graph.random(*weights))
        y = graph.add(operator, inputs, **attributes)
        graph._nodes[-1].name = "it"
        return graph.finish({y: (3, 8, 8)})

    with pytest.raises(BadInput, match=r"LRN \(it\) is not known"):
        read(one("LRN", size=3))
    with pytest.raises(BadInput, match=r"Conv \(it\) leaves its padding"):
        read(one("Conv", 3, 3, 3, 3, kernel_shape=(3, 3), auto_pad="SAME_UPPER"))
