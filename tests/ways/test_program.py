from collections import Counter

import numpy as np
import pytest
import torch
from torch.nn import functional

from dpcompress.blueprint import Blueprint, ConvSpec, Span, candidates
from dpcompress.errors import BadInput
from dpcompress.latency.frames import FramedProgram
from dpcompress.onnxio.write import ACTIVATIONS, Graph, plain_graph
from dpcompress.runner import Target
from dpcompress.ways import merge
from dpcompress.ways.program import Program, Step
from tests.latency.networks import mobilenet_v2, small_residual


def signature(blueprint: Blueprint, start: int, stop: int, act_stop: bool) -> str:
    merged = candidates(blueprint)[Span(start, stop)]
    return merge.program(blueprint, merged, act_stop).signature


@pytest.mark.parametrize(
    ("start", "stop", "act_stop", "wanted"),
    [
        (0, 1, True, "raw3x16x16 > conv16k3s2p1(0) relu6(1)"),
        (0, 1, False, "raw3x16x16 > conv16k3s2p1(0)"),
        # The skip of the inverted residual lies inside: it is part of the kernel.
        (1, 4, False, "16x8x8 > conv16k3p1(0)"),
        (1, 4, True, "16x8x8 > conv16k3p1(0) relu6(1)"),
        # It goes around: the add runs besides, with a tensor from elsewhere.
        (2, 4, False, "32x8x8,16x8x8 > conv16k3p1(0) add(1,2)"),
        (2, 4, True, "32x8x8,16x8x8 > conv16k3p1(0) add(1,2) relu6(3)"),
        # So does the projection, whose norm is folded.
        (5, 6, False, "32x4x4,16x8x8 > conv32k3p1(0) conv32k1s2(1) add(2,3)"),
        (5, 6, True, "32x4x4,16x8x8 > conv32k3p1(0) conv32k1s2(1) add(2,3) relu6(4)"),
        # Here it is inside as well.
        (4, 6, True, "16x8x8 > conv32k7s2p3(0) relu6(1)"),
        (2, 3, True, "32x8x8 > conv32k3p1g32(0) relu6(1)"),
    ],
)
def test_what_runs_for_a_span(start: int, stop: int, act_stop: bool, wanted: str) -> None:
    assert signature(small_residual(), start, stop, act_stop) == wanted


def test_equal_spans_share_an_op() -> None:
    blueprint = mobilenet_v2(224)
    found = Counter(
        merge.program(blueprint, merged, True).signature
        for merged in candidates(blueprint).values()
    )
    # Blocks 2 to 4 of the fourth stage (64 channels, 14×14) are alike.
    assert found["64x14x14 > conv384k1(0) relu6(1)"] == 4
    assert len(found) < 0.85 * sum(found.values())


def test_asymmetric_padding_makes_another_op() -> None:
    def op(padding: tuple[tuple[int, int], tuple[int, int]]) -> str:
        conv = ConvSpec(in_channels=4, out_channels=4, kernel=(3, 3), padding=padding)
        return Step("conv", (0,), (4, 8, 8), conv=conv).label

    assert op(((1, 1), (1, 1))) == "conv4k3p1(0)"
    assert op(((0, 2), (1, 1))) == "conv4k3pt0b2l1r1(0)"


@pytest.mark.parametrize("act", ["relu6", "silu"])
def test_every_graph_runs_and_has_the_right_shape(act: str) -> None:
    blueprint = small_residual(act)
    engine = Target(threads=1).open()
    for span, merged in candidates(blueprint).items():
        for flag in (False, True):
            op = merge.program(blueprint, merged, flag)
            exit = blueprint.ops[blueprint.layers[span.stop - 1].out].shape
            assert op.shape == exit
            feed = {
                f"input{i}": np.ones((2, *s.shape), np.float32)
                for i, s in enumerate(op.sources)
            }
            (y,) = engine.load(plain_graph(op, 2)).infer(feed).values()
            assert y.shape == (2, *exit)
            engine.load(FramedProgram(op, 3).graph(2)).run_many(1)


def test_same_op_same_bytes() -> None:
    blueprint = small_residual()
    framed = FramedProgram(
        merge.program(blueprint, candidates(blueprint)[Span(2, 4)], True), 3
    )
    assert framed.graph(4) == framed.graph(4)
    assert framed.graph(4) != framed.graph(2)


@pytest.mark.parametrize("act", sorted(ACTIVATIONS))
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
        function = getattr(functional, act, None) or getattr(torch, act)
        wanted = function(x)
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
    op = Program((), (Step("act", (0,), (1, 1, 1), act="swoosh"),))
    with pytest.raises(BadInput, match="swoosh"):
        Graph("x", 1).step(op.steps[0], ["x"])
