"""Expand-then-shrink: the same network at first, and the same layers at last."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from dpcompress.depthshrinker.contract import contract
from dpcompress.depthshrinker.expand import Expanded, Expansion, expand, refusals
from dpcompress.depthshrinker.retrain import APPEAR, GO, GONE, expand_then_shrink, share
from dpcompress.errors import IllegalMerge, UsageError
from dpcompress.graph import linearize, set_share, trace
from dpcompress.training import Recipe, state_digest
from tests.depthshrinker.networks import basic, images, inverted, plain
from tests.graph.networks import randomise
from tests.training.networks import small_digits

SIZE = (3, 8, 8)
DENSE = {
    inverted: ["0"],
    basic: ["0", "2.conv1", "2.conv2", "3.conv1", "3.conv2"],
    plain: ["0", "3", "6"],
}


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def double(make) -> nn.Module:  # type: ignore[no-untyped-def]
    model = make().double()
    randomise(model, SIZE)
    return model


def relative(actual: torch.Tensor, expected: torch.Tensor) -> float:
    return float(((actual - expected).abs().max() / expected.abs().max()).detach())


@pytest.mark.parametrize("make", DENSE)
def test_it_starts_as_the_same_function(make) -> None:  # type: ignore[no-untyped-def]
    model, x = double(make), images(SIZE).double()
    expansion = expand(model, images(SIZE, 16).double())
    assert list(expansion.convs) == DENSE[make]
    assert max(expansion.weight_error.values()) < 1e-7
    linear = linearize(expansion.network, expansion.plan, decay=True)
    set_share(linear, 1.0)
    assert relative(linear(x), model(x)) < 1e-12
    set_share(linear, 0.5)
    assert relative(linear(x), model(x)) > 1e-6


def kernel_of(block: Expanded) -> torch.Tensor:
    """By its definition: over the middle channels, project · depthwise · expand."""
    return torch.einsum(
        "om,mhw,mi->oihw",
        block.project.weight[:, :, 0, 0],
        block.depthwise.weight[:, 0],
        block.expand.weight[:, :, 0, 0],
    )


@pytest.mark.parametrize("ratio", [0.5, 2, 6, 9, 100])
def test_a_narrow_block_says_how_close_it_is(ratio: float) -> None:
    model = double(basic)
    expansion = expand(model, images(SIZE).double(), convs=["3.conv2"], ratio=ratio)
    block = expansion.network.get_submodule("3.conv2")
    assert isinstance(block, Expanded)
    weight = model.get_submodule("3.conv2").weight
    # An input channel's 12 x 9 kernel has nine singular pairs.
    assert block.expand.out_channels == min(round(ratio * 12), 108)
    error = float((kernel_of(block) - weight).norm() / weight.norm())
    assert expansion.weight_error == {"3.conv2": pytest.approx(error, abs=1e-7)}
    assert (error < 1e-7) == (ratio >= 9)
    singular = torch.linalg.svdvals(weight.permute(1, 0, 2, 3).flatten(2)).flatten()
    rest = singular.sort(descending=True).values[block.expand.out_channels :]
    assert error == pytest.approx(float(rest.norm() / weight.norm()), abs=1e-7)


def train_a_bit(expansion: Expansion) -> nn.Module:
    """The linear network with other weights, as after training."""
    linear = linearize(expansion.network, expansion.plan)
    torch.manual_seed(5)
    with torch.no_grad():
        for parameter in linear.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    randomise(linear, SIZE)
    return linear


@pytest.mark.parametrize("make", DENSE)
def test_contracted_it_is_the_original_architecture(make) -> None:  # type: ignore[no-untyped-def]
    model = double(make)
    expansion = expand(model, images(SIZE).double())
    linear = train_a_bit(expansion)
    found = contract(model, expansion, linear, images(SIZE))  # type: ignore[arg-type]
    # Layer by layer: the same modules of the same sizes, and the same state.
    assert str(found.model) == str(model)
    shapes = [
        {k: v.shape for k, v in m.state_dict().items()} for m in (found.model, model)
    ]
    assert shapes[0] == shapes[1]
    x = images(SIZE, 8).double()
    assert relative(found.model(x), linear(x)) < 1e-10
    assert relative(found.model(x), model(x)) > 0.01
    assert found.certificate.holds and found.difference < 1e-10
    merged = {layer.conv for layer in trace(found.model, SIZE).layers}
    assert len(merged) == len(expansion.plan.spans)


def test_strides_and_dilations() -> None:
    model = nn.Sequential(
        *(nn.Conv2d(3, 4, 3, 2, 1, bias=False), nn.BatchNorm2d(4), nn.ReLU()),
        *(nn.Conv2d(4, 4, (3, 1), padding=(2, 0), dilation=2), nn.SiLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
    ).double()
    randomise(model, SIZE)
    expansion = expand(model, images(SIZE).double())
    linear = train_a_bit(expansion)
    found = contract(model, expansion, linear, images(SIZE))  # type: ignore[arg-type]
    assert found.difference < 1e-10 and str(found.model) == str(model)


def test_nothing_contracts_while_activations_work() -> None:
    model = double(plain)
    expansion = expand(model, images(SIZE).double())
    linear = linearize(expansion.network, expansion.plan, decay=True)
    with pytest.raises(IllegalMerge, match="still work in part"):
        contract(model, expansion, linear, images(SIZE))


class Refused(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.bare = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.grouped = nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.pointwise = nn.Conv2d(8, 8, 1)
        self.main = nn.Conv2d(8, 8, 3, padding=1)
        self.side = nn.Conv2d(8, 8, 3, padding=1)
        self.mirrored = nn.Conv2d(8, 8, 3, padding=1, padding_mode="reflect")
        self.padded = nn.Conv2d(8, 8, 2, padding="same")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.grouped(F.relu(self.bare(x))))
        x = F.relu(self.pointwise(x))
        x = F.relu(self.main(F.relu(self.main_in(x))) + self.side(x))
        return F.relu(self.padded(F.relu(self.mirrored(x)))).mean((2, 3))

    def main_in(self, x: torch.Tensor) -> torch.Tensor:
        return x * 1.0


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("bare", "it has no bias, nor a norm after it"),
        ("grouped", "it has 2 groups, only dense ones expand"),
        ("pointwise", "a 1x1 kernel has no taps"),
        ("mirrored", "it pads in mode 'reflect'"),
        ("padded", "its padding is not the same on both sides"),
        ("nowhere", "there is no convolution of this name"),
    ],
)
def test_refusals_name_the_reason(name: str, why: str) -> None:
    with pytest.raises(UsageError, match=f"{name} cannot be expanded: {why}") as error:
        expand(Refused(), images(SIZE), convs=["main", name])
    assert "Those that can: " in error.value.remedy


def test_a_side_branch_is_refused() -> None:
    known = refusals(trace(basic(), SIZE))
    assert "side branch" in known["3.down.0"] or "1x1" in known["3.down.0"]
    known = refusals(trace(Refused(), SIZE))
    assert [name for name in ("main", "side") if not known[name]]


def test_a_network_without_dense_convolutions() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 1))
    with pytest.raises(UsageError, match="No convolution can be expanded; the first one"):
        expand(model, images(SIZE))


def test_activations_come_and_go() -> None:
    assert share(0.0) == 1.0 and share(APPEAR) == 0.0 and share(GO) == 0.0
    assert 0 < share((GO + GONE) / 2) < 1 and share(GONE) == share(1.0) == 1.0


def test_training_expanded_resumes_and_ends_in_the_original_layers(
    tmp_path: Path,
) -> None:
    class Stop(Exception):
        pass

    def stop(done: int, total: int, note: str = "") -> None:
        if done == 10:
            raise Stop

    data, model = small_digits(), basic()
    before = copy.deepcopy(model.state_dict())
    recipe = Recipe(epochs=2, batch_size=128, lr=0.02)
    whole = expand_then_shrink(model, data, recipe)
    assert whole.start_error < 1e-4
    path = tmp_path / "expand.checkpoint"
    with pytest.raises(Stop):
        expand_then_shrink(model, data, recipe, checkpoint=path, progress=stop)
    resumed = expand_then_shrink(model, data, recipe, checkpoint=path)
    assert state_digest(resumed.contracted.model) == state_digest(whole.contracted.model)
    assert str(whole.contracted.model) == str(model)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert not torch.equal(whole.contracted.model[0].weight, model[0].weight)
