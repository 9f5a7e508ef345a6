"""Programs as ONNX graphs, run by ONNX Runtime."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from dpcompress.blueprint import ConvSpec, Span, candidates, split_activation
from dpcompress.errors import BadInput
from dpcompress.latency.frames import FramedProgram
from dpcompress.onnxio.write import ACTIVATIONS, Graph, plain_graph
from dpcompress.runner import Target
from dpcompress.ways import merge
from dpcompress.ways.program import Step
from tests.latency.blueprints import small_residual


@pytest.mark.parametrize("act", ["relu6", "silu", "leaky_relu(0.1)"])
def test_every_graph_runs_and_has_the_right_shape(act: str) -> None:
    blueprint = small_residual(act)
    engine = Target(threads=1).open()
    for span, merged in candidates(blueprint).items():
        for flag in (False, True):
            program = merge.program(blueprint, merged, flag)
            exit = blueprint.ops[blueprint.layers[span.stop - 1].out].shape
            assert program.shape == exit
            feed = {
                f"input{i}": np.ones((2, *s.shape), np.float32)
                for i, s in enumerate(program.sources)
            }
            (y,) = engine.load(plain_graph(program, 2)).infer(feed).values()
            assert y.shape == (2, *exit)
            engine.load(FramedProgram(program, 3).graph(2)).run_many(1)


def test_same_program_same_bytes() -> None:
    blueprint = small_residual()
    framed = FramedProgram(
        merge.program(blueprint, candidates(blueprint)[Span(2, 4)], True), 3
    )
    assert framed.graph(4) == framed.graph(4)
    assert framed.graph(4) != framed.graph(2)


WITH_PARAMETERS = ("leaky_relu(0.2)", "elu(0.5)", "hardtanh(-2,3)", "gelu(tanh)")


@pytest.mark.parametrize("act", [*sorted(ACTIVATIONS), *WITH_PARAMETERS])
def test_activations_compute_what_torch_does(act: str) -> None:
    shape = (3, 5, 7)
    graph = Graph(act, 2)
    output = graph.step(Step("act", (0,), shape, act=act), [graph.input(shape)])
    session = Target(threads=1).open().load(graph.finish({output: shape}))
    x = torch.linspace(-8, 8, 2 * 3 * 5 * 7).reshape(2, *shape)
    (found,) = session.infer({"input0": x.numpy()}).values()
    if act == "prelu":
        wanted = functional.prelu(x, torch.tensor([0.25]))
    else:
        name, parameters = split_activation(act)
        function = getattr(functional, name, None) or getattr(torch, name)
        if name == "gelu" and parameters:
            wanted = function(x, approximate="tanh")
        else:
            wanted = function(x, *parameters)
    torch.testing.assert_close(torch.from_numpy(found), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["norm", "avgpool", "pad"])
def test_what_may_follow_a_conv(kind: str) -> None:
    graph = Graph(kind, 1)
    x = torch.arange(2 * 4 * 6, dtype=torch.float32).reshape(1, 2, 4, 6)
    sides = ((0, 1), (2, 0))
    pool = ConvSpec(
        in_channels=2, out_channels=2, kernel=(2, 2), stride=(2, 2), groups=2, bias=False
    )
    step, wanted = {
        "norm": (Step("norm", (0,), (2, 4, 6)), x / (1 + 1e-5) ** 0.5),
        "avgpool": (
            Step("avgpool", (0,), (2, 2, 3), conv=pool),
            functional.avg_pool2d(x, 2),
        ),
        "pad": (
            Step("pad", (0,), (2, 5, 8), padding=sides),
            functional.pad(x, (2, 0, 0, 1)),
        ),
    }[kind]
    output = graph.step(step, [graph.input((2, 4, 6))])
    session = Target().open().load(graph.finish({output: step.shape}))
    (found,) = session.infer({"input0": x.numpy()}).values()
    torch.testing.assert_close(torch.from_numpy(found), wanted)


def test_an_unknown_activation_is_named() -> None:
    step = Step("act", (0,), (1, 1, 1), act="swoosh")
    with pytest.raises(BadInput, match="swoosh"):
        Graph("x", 1).step(step, ["x"])
