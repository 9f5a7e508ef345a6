"""What cannot be traced or merged is refused with its name, never computed wrongly."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dpcompress.blueprint import Choice, Illegal, Plan, Span, examine, keep_everything
from dpcompress.errors import BadInput, IllegalMerge, UntraceableModel
from dpcompress.graph import left_alone, linearize, merge, trace


def conv(a: int = 3, b: int = 3, k: int = 3) -> nn.Conv2d:
    return nn.Conv2d(a, b, k, padding=k // 2)


class Branching(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.mean() > 0 else -x


class TwoInputs(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x + y


class InPlace(nn.Module):
    """Uses a tensor again after changing it in place."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.act = conv(), nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return y + self.act(y)


def reason(model: nn.Module, start: int, stop: int) -> str:
    found = examine(trace(model, (3, 12, 12)), Span(start, stop))
    assert isinstance(found, Illegal)
    return found.why


def test_control_flow_at_the_top_is_refused_and_in_a_submodule_left_alone():
    with pytest.raises(UntraceableModel, match="Branching"):
        trace(Branching(), (3, 8, 8))
    model = nn.Sequential(conv(), Branching(), conv())
    assert "cannot be traced" in reason(model, 0, 2)
    plan = keep_everything(trace(model, (3, 8, 8)))
    images = torch.randn(2, 3, 8, 8)
    merged, _ = merge(linearize(model, plan), images)
    assert torch.allclose(merged(images), model(images), atol=1e-5)


def test_no_convolution_several_inputs_wrong_size():
    with pytest.raises(UntraceableModel, match="no convolution"):
        trace(nn.Sequential(nn.Flatten(), nn.Linear(12, 2)), (3, 2, 2))
    with pytest.raises(UntraceableModel, match="2 inputs"):
        trace(TwoInputs(), (3, 8, 8))
    with pytest.raises(BadInput, match="does not accept an input of 3x8x8"):
        trace(nn.Sequential(conv(4, 4)), (3, 8, 8))


def test_convolutions_that_are_no_layers_are_told_with_the_reason():
    shared = conv()
    with pytest.raises(UntraceableModel, match="no conv.*0: the module is used 2 times"):
        trace(nn.Sequential(shared, nn.ReLU(), shared), (3, 8, 8))
    model = nn.Sequential(conv(), nn.AdaptiveAvgPool2d(1), conv(3, 3, 1), shared)
    model.append(shared)
    ops = trace(model, (3, 8, 8)).ops
    assert left_alone(model, ops) == {
        "2": "it works on a globally pooled vector",
        "3": "the module is used 2 times",
    }


def lazy() -> nn.Module:
    return nn.Sequential(nn.LazyConv2d(3, 3), nn.ReLU(), conv())


def on_meta() -> nn.Module:
    return nn.Sequential(conv(), conv()).to("meta")


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:FutureWarning")
@pytest.mark.parametrize(
    ("make", "kind", "words"),
    [
        (lazy, BadInput, "0.weight of Sequential has no values yet"),
        (on_meta, BadInput, "0.weight of Sequential has no values yet"),
        (lambda: torch.jit.script(conv_only()), UntraceableModel, "compiled script"),
        (lambda: nn.DataParallel(conv_only()), UntraceableModel, "not name its input"),
    ],
    ids=["lazy", "meta", "script", "data parallel"],
)
def test_what_is_no_plain_module_is_refused(
    make: Callable[[], nn.Module], kind: type[Exception], words: str
):
    with pytest.raises(kind, match=words):
        trace(make(), (3, 8, 8))


class Written(nn.Module):
    """Its middle is a function."""

    def __init__(self, middle: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.middle, self.last = conv(), middle, conv()

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.middle(self.first(x)))


@pytest.mark.parametrize(
    ("middle", "words"),
    [
        (lambda y: F.adaptive_avg_pool2d(y, 4), "global pooling"),
        (lambda y: y @ y.transpose(-2, -1), "attention"),
        (lambda y: F.scaled_dot_product_attention(y, y, y), "attention"),
        (lambda y: torch.cat([y[:, 1:], y[:, :1]], 1), "concatenation"),
    ],
)
def test_barriers_written_as_functions_are_named(
    middle: Callable[[Tensor], Tensor], words: str
):
    assert words in reason(Written(middle), 0, 2)


def test_a_graph_that_computes_something_else_is_refused():
    with pytest.raises(UntraceableModel, match="in place"):
        trace(InPlace(), (3, 8, 8))


def test_an_output_that_sees_only_padding_is_not_merged():
    model = nn.Sequential(nn.Conv2d(3, 3, 1, stride=4), nn.Conv2d(3, 3, 1, padding=1))
    model.append(nn.Conv2d(3, 3, 1, stride=9))
    assert "nothing but padding" in reason(model, 0, 3)


def test_shared_modules_and_parameters_are_barriers():
    shared = conv()
    assert "used 2 times" in reason(nn.Sequential(conv(), shared, shared, conv()), 0, 2)
    tied = nn.Sequential(conv(), conv(), conv(), conv())
    tied[2].weight = tied[1].weight
    assert "also used elsewhere" in reason(tied, 0, 2)


@pytest.mark.parametrize(
    ("barrier", "words"),
    [
        (nn.MaxPool2d(2), "max pooling"),
        (nn.AdaptiveAvgPool2d(4), "global pooling"),
        (nn.Conv2d(3, 3, 3, padding=1, padding_mode="reflect"), "'reflect'"),
        (nn.GroupNorm(3, 3), "own statistics"),
        (nn.AvgPool2d(5, 5, ceil_mode=True), "partial last window"),
        (nn.AvgPool2d(3, 1, 1, count_include_pad=False), "out of the count"),
        (nn.Softmax(1), "Softmax"),
        (nn.PixelShuffle(1), "PixelShuffle"),
    ],
)
def test_barriers_are_named(barrier: nn.Module, words: str):
    assert words in reason(nn.Sequential(conv(), barrier, conv()), 0, 2)


def test_plans_that_do_not_fit_are_refused():
    model = nn.Sequential(conv(), nn.ReLU(), nn.MaxPool2d(2), conv())
    blueprint = trace(model, (3, 8, 8))
    known = {"blueprint": blueprint.digest, "input": blueprint.input}
    with pytest.raises(IllegalMerge, match="max pooling"):
        linearize(model, Plan.build((0, 2), (), **known))
    with pytest.raises(IllegalMerge, match="for 3 layers"):
        linearize(model, Plan.build((0, 3), (), **known))
    with pytest.raises(IllegalMerge, match="another network"):
        linearize(conv_only(), Plan.build((0, 1, 2), (), **known))
    with pytest.raises(IllegalMerge, match="has none"):
        linearize(model, Plan.build((0, 1, 2), (1, 2), **known))
    with pytest.raises(IllegalMerge, match="input size"):
        linearize(model, Plan.build((0, 1, 2), (1,)))
    unknown = Choice(start=0, stop=2, way="drop")
    with pytest.raises(BadInput, match="'drop', which this version does not know"):
        linearize(model, Plan(choices=(unknown,), activations=(), **known))
    merged, _ = merge(linearize(model, keep_everything(blueprint)))
    for other in (model, merged):
        with pytest.raises(IllegalMerge, match="not a linearized network"):
            merge(other)


def conv_only() -> nn.Module:
    return nn.Sequential(conv(), conv(3, 5))
