"""Networks written in odd ways: each merges exactly, or its barrier has a name."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dpcompress.blueprint import Illegal, Span, examine, keep_everything, legal_spans
from dpcompress.errors import BadInput, UntraceableModel
from dpcompress.graph import build, linearize, merge, trace
from tests.graph.networks import whole_plan

SHAPE = (3, 9, 8)


def conv(a: int = 3, b: int = 3, k: int = 3, **options: int) -> nn.Conv2d:
    return nn.Conv2d(a, b, k, padding=k // 2, **options)


class Net(nn.Module):
    """Three convolutions and a norm, combined by `how`."""

    def __init__(self, how: Callable[[Net, Tensor], Tensor]) -> None:
        super().__init__()
        self.a, self.b, self.c = conv(), conv(), conv()
        self.norm, self.act, self.pool = nn.BatchNorm2d(3), nn.ReLU(), nn.AvgPool2d(2)
        self.body = nn.Sequential(conv(), nn.ReLU(inplace=True), conv(), nn.ReLU())
        self.ways = nn.ModuleDict({"left": conv(), "right": nn.Sequential(conv())})
        self.shift = nn.Parameter(torch.randn(1, 3, 1, 1))
        self.image = nn.Parameter(torch.randn(1, *SHAPE))
        self.how = how

    def forward(self, x: Tensor) -> Tensor:
        return self.how(self, x)


def every_merge_is_exact(model: nn.Module, shape: tuple[int, int, int] = SHAPE) -> int:
    """Merges every legal span on its own and returns how many span several layers."""
    torch.manual_seed(0)
    images = torch.randn(3, *shape)
    model.eval()
    blueprint = trace(model, shape)
    unchanged = build(model, keep_everything(blueprint))
    with torch.no_grad():
        wanted = model.float()(images)
        assert torch.allclose(unchanged(images), wanted, atol=1e-5)
    wide = [span for span in legal_spans(blueprint) if span.length > 1]
    for span in wide:
        plan = whole_plan(blueprint, [span])
        merge(linearize(model, plan), images)  # raises unless it is exact
    return len(wide)


def why(model: nn.Module, start: int, stop: int) -> str:
    found = examine(trace(model, SHAPE), Span(start, stop))
    assert isinstance(found, Illegal)
    return found.why


MERGING = {
    "keyword arguments": lambda m, x: m.b(input=m.act(input=m.norm(input=m.a(input=x)))),
    "pooling with keywords": lambda m, x: m.b(m.pool(input=m.a(x))),
    "functional pooling with keywords": lambda m, x: m.b(
        F.avg_pool2d(m.a(x), kernel_size=3, stride=1, padding=1)
    ),
    "pad with keywords": lambda m, x: m.b(F.pad(m.a(x), pad=(1, 0, 2, 1), value=0)),
    "pad of the width only": lambda m, x: m.b(F.pad(m.a(x), (2, 1))),
    "functional activation": lambda m, x: m.b(F.relu(input=m.a(x), inplace=True)),
    "activation made on the fly": lambda m, x: m.b(nn.ReLU()(m.a(x))),
    "slices of a Sequential": lambda m, x: m.body[2:](m.body[:2](x)),
    "ModuleDict": lambda m, x: m.ways["right"](F.silu(m.ways["left"](x))),
    "sum of a list": lambda m, x: m.c(sum([m.a(x), m.b(x)])),
    "add and rebind": lambda m, x: rebind(m, x),
    "one activation for all": lambda m, x: m.c(m.act(m.b(m.act(m.a(x))))),
    "methods": lambda m, x: m.b(m.a(x).relu_().contiguous()).add(x),
    "dropout off": lambda m, x: m.b(F.dropout(m.a(x), 0.5, m.training)),
}

LEFT_ALONE = {
    "functional conv": lambda m, x: m.c(F.conv2d(m.a(x), m.b.weight, padding=1)),
    "weights used elsewhere": lambda m, x: F.conv2d(m.b(m.a(x)), m.b.weight, padding=1),
    "constant added": lambda m, x: m.b(m.a(x) + 1),
    "parameter added": lambda m, x: m.b(m.a(x) + m.shift),
    "image added": lambda m, x: m.b(m.a(x) + m.image),
    "tensor made in forward": lambda m, x: m.b(m.a(x) + torch.full(SHAPE, 0.5)),
    "added to itself": lambda m, x: m.b((y := m.a(x)) + y),
    "added with alpha": lambda m, x: m.b(torch.add(m.a(x), x, alpha=2)),
    "broadcast add": lambda m, x: m.b(m.a(x) + x.mean(1, keepdim=True)),
    "mean of the batch": lambda m, x: m.b(m.a(x) + (x - x).mean(0, keepdim=True)),
    "conv twice": lambda m, x: m.b(m.a(m.a(x))),
    "chunk and cat": lambda m, x: m.b(torch.cat(m.a(x).chunk(3, dim=1)[::-1], dim=1)),
    "pooling with indices": lambda m, x: m.b(
        F.max_pool2d(m.a(x), 2, return_indices=True)[0]
    ),
    "crop": lambda m, x: m.b(m.a(x)[:, :, 1:, 1:]),
    "negative pad": lambda m, x: m.b(F.pad(m.a(x), (-1, 0))),
    "shape arithmetic": lambda m, x: m.b(m.a(x).view(x.shape[0], *SHAPE)),
    "in place and rebind": lambda m, x: m.b(m.a(x).mul_(2)),
}


def rebind(m: Net, x: Tensor) -> Tensor:
    y = m.a(x)
    y += x
    return m.b(y)


@pytest.mark.parametrize("name", MERGING)
def test_merges(name: str):
    assert every_merge_is_exact(Net(MERGING[name])) > 0


@pytest.mark.parametrize("name", LEFT_ALONE)
def test_is_left_alone(name: str):
    assert every_merge_is_exact(Net(LEFT_ALONE[name])) == 0


class Changing(Net):
    """Its convolution's result is changed behind the graph's back."""


@pytest.mark.parametrize(
    "how",
    [
        lambda m, x: ((y := m.a(x)).mul_(2), m.b(y))[1],
        lambda m, x: ((y := m.a(x)).add_(1), m.b(y))[1],
        lambda m, x: (F.relu(y := m.a(x), inplace=True), m.b(y))[1],
        lambda m, x: (y := m.a(x)) + m.act.__class__(inplace=True)(y),
        lambda m, x: ((y := m.a(x)), y.view(-1).mul_(2), m.b(y))[2],
    ],
    ids=["mul_", "add_", "relu", "module", "view"],
)
def test_changes_in_place_are_refused(how: Callable[[Net, Tensor], Tensor]):
    with pytest.raises(UntraceableModel, match="in place"):
        trace(Net(how), SHAPE)


@pytest.mark.parametrize(
    "layers",
    [
        [conv(3, 6, groups=3), conv(6, 6, groups=6), conv(6, 12, groups=2)],
        [conv(3, 6, stride=2, dilation=2), conv(6, 4, 1, stride=2), conv(4, 4)],
        [nn.Conv2d(3, 4, 2, stride=3), nn.Conv2d(4, 4, (1, 2), dilation=2)],
        [nn.Conv2d(3, 4, 4, padding="same"), nn.Conv2d(4, 4, 3, padding="valid")],
        [conv(3, 1), conv(1, 1), conv(1, 3)],
    ],
    ids=["depth multiplier", "dilation, stride", "even", "same", "one channel"],
)
def test_convolutions_of_all_kinds(layers: list[nn.Module]):
    assert every_merge_is_exact(nn.Sequential(*layers)) > 0


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_other_precisions(dtype: torch.dtype):
    model = Net(MERGING["one activation for all"]).to(dtype)
    model.requires_grad_(False).train()
    plan = whole_plan(trace(model, SHAPE), [(0, 2)])
    network = linearize(model, plan)
    assert network.training and model.training
    merged, certificate = merge(network)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    assert next(merged.parameters()).dtype == wide
    assert certificate.holds


class Optional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = conv(), conv()

    def forward(
        self, x: Tensor, mask: Tensor | None = None, twice: bool = False, *rest: Tensor
    ) -> Tensor:
        y = self.b(self.a(x))
        return y if mask is None else y * mask


def test_arguments_with_defaults():
    assert every_merge_is_exact(Optional()) == 1


class DropPath(nn.Module):
    """Has the name of an identity, but takes two tensors."""

    def forward(self, x: Tensor, shortcut: Tensor) -> Tensor:
        return x + 2 * shortcut


class FrozenBatchNorm2d(nn.Module):
    """As in DETR: its eps is in the code, not in an attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("weight", torch.rand(3))
        self.register_buffer("bias", torch.rand(3))
        self.register_buffer("running_mean", torch.rand(3))
        self.register_buffer("running_var", torch.rand(3))

    def forward(self, x: Tensor) -> Tensor:
        scale = (self.weight * (self.running_var + 1e-3).rsqrt()).reshape(1, -1, 1, 1)
        return (x - self.running_mean.reshape(1, -1, 1, 1)) * scale


class Named(nn.Module):
    def __init__(self, module: nn.Module, *, two: bool) -> None:
        super().__init__()
        self.a, self.b, self.module, self.two = conv(), conv(), module, two

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        return self.b(self.module(y, x) if self.two else self.module(y))


def test_a_module_is_not_what_its_name_says():
    assert every_merge_is_exact(Named(DropPath(), two=True)) == 0
    assert every_merge_is_exact(Named(FrozenBatchNorm2d(), two=False)) == 0


class Keeper(nn.Module):
    def __init__(self, how: str) -> None:
        super().__init__()
        self.conv, self.how = conv(), how
        self.last: Tensor | None = None
        self.list: list[Tensor] = []
        self.dict: dict[str, Tensor] = {}

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        if self.how == "last":
            self.last = x
        if self.how == "list":
            self.list.append(x)
        if self.how == "dict":
            self.dict["x"] = x
        return x


@pytest.mark.parametrize("how", ["last", "list", "dict"])
def test_a_module_that_keeps_a_tensor_stays_as_it_is(how: str):
    kept = f"keeps a tensor in its attribute {how!r}"
    with pytest.raises(UntraceableModel, match=kept):
        trace(Keeper(how), SHAPE)
    model = nn.Sequential(conv(), Keeper(how), conv(), conv())
    assert every_merge_is_exact(model) == 1
    assert kept in why(model, 0, 2)
    merged, _ = merge(linearize(model, keep_everything(trace(model, SHAPE))))
    images = torch.randn(1, *SHAPE)
    merged.float()(images)
    kept_there = getattr(merged.get_submodule("1"), how)
    last = {"last": lambda k: k, "list": lambda k: k[-1], "dict": lambda k: k["x"]}[how]
    assert isinstance(last(kept_there), Tensor)


def test_hooks_that_change_a_result_are_barriers():
    model = Net(MERGING["pooling with keywords"])
    model.pool.register_forward_hook(lambda module, args, result: result * 2)
    assert "hook" in why(model, 0, 2)
    assert every_merge_is_exact(model) == 0


def test_weights_that_are_computed_are_barriers():
    model = nn.Sequential(conv(), nn.utils.parametrizations.weight_norm(conv()), conv())
    assert "parametrization" in why(model, 0, 2)
    assert every_merge_is_exact(model) == 0


def test_a_model_that_cannot_be_copied_is_named():
    model = nn.Sequential(conv(), nn.utils.weight_norm(conv()), conv())
    with pytest.raises(UntraceableModel, match="Sequential cannot be copied"):
        trace(model, SHAPE)


@pytest.mark.parametrize("fault", [KeyError("x"), TypeError("x"), AttributeError("x")])
def test_an_error_of_the_model_itself_is_told(fault: Exception):
    def fail(m: Net, x: Tensor) -> Tensor:
        raise fault

    with pytest.raises(BadInput, match="does not accept an input of 3x9x8"):
        trace(Net(fail), SHAPE)


def test_a_bare_convolution_and_nan_weights():
    with pytest.raises(UntraceableModel, match="no convolution"):
        trace(conv(), SHAPE)
    broken = nn.Sequential(conv(), conv())
    nn.init.constant_(broken[0].weight, float("nan"))
    with pytest.raises(BadInput, match="not a number"):
        trace(broken, SHAPE)
