"""A linearized span pads first, and computes on the original sizes where it can."""

import pytest
import torch
from torch import Tensor, fx, nn

from dpcompress.blueprint import Plan, check_plan
from dpcompress.graph import linearize, merge, trace
from dpcompress.graph.frames import UNCHANGED, Frame, pad_first, shrink_frames

PLAN = Plan.build((0, 3), (), input=(4, 8, 8))
ONE = ((1, 1), (1, 1))


def bottleneck(kernel: int = 3, stride: int = 1, bias: bool = True) -> nn.Module:
    torch.manual_seed(0)
    layers = (
        nn.Conv2d(4, 8, 1, bias=bias), nn.BatchNorm2d(8), nn.ReLU6(),
        nn.Conv2d(8, 8, kernel, stride, kernel // 2, groups=8), nn.BatchNorm2d(8),
        nn.ReLU6(), nn.Conv2d(8, 4, 1), nn.BatchNorm2d(4),
    )  # fmt: skip
    for layer in layers:
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.running_mean)
            nn.init.uniform_(layer.running_var, 0.5, 2)
            nn.init.normal_(layer.bias)
    return nn.Sequential(*layers).eval()


def linearized(model: nn.Module, *, own_frames: bool = True) -> fx.GraphModule:
    return linearize(model, PLAN, own_frames=own_frames)


def by_hand(model: nn.Module, images: Tensor) -> Tensor:
    """Everything padded first (docs/method.md §3): larger tensors, no other padding."""
    first, norm1, _, middle, norm2, _, last, norm3 = model
    reach = middle.padding[0]
    wide = nn.functional.pad(images, [reach] * 4)
    wide = norm1(nn.functional.conv2d(wide, first.weight, first.bias))
    wide = nn.functional.conv2d(
        wide, middle.weight, middle.bias, middle.stride, groups=middle.groups
    )
    return norm3(last(norm2(wide)))


@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("own_frames", [True, False])
@torch.no_grad()
def test_it_is_the_function_of_padding_first(
    kernel: int, stride: int, bias: bool, own_frames: bool
) -> None:
    model = bottleneck(kernel, stride, bias).double()
    images = torch.randn(2, 4, 8, 8, dtype=torch.float64)
    network = linearized(model, own_frames=own_frames)
    expected = by_hand(model, images)
    assert torch.allclose(network(images), expected, rtol=0, atol=1e-12)
    _, certificate = merge(network)
    assert certificate.network_random.float64 < 1e-10


def test_frames_of_a_bottleneck_are_these() -> None:
    """Ops 1 to 8: conv 1×1, norm, act, conv 3×3, norm, act, conv 1×1, norm."""
    blueprint = trace(bottleneck(), (4, 8, 8))
    (span,) = check_plan(blueprint, PLAN)
    wide = pad_first(blueprint, span)
    assert wide[0] == Frame(1, ONE, (ONE,))
    assert wide[1:3] == [Frame(index, ONE, (UNCHANGED,)) for index in (2, 3)]
    assert wide[3:] == [Frame(i, UNCHANGED, (UNCHANGED,)) for i in range(4, 9)]
    shrunk = shrink_frames(blueprint, span, wide)
    kept = [Frame(i, UNCHANGED, (UNCHANGED,), outside="constant") for i in (1, 2, 3)]
    assert shrunk == [*kept, Frame(4, UNCHANGED, (ONE,), padding=(1, 1)), *wide[4:]]


def sizes_of_images(network: fx.GraphModule) -> list[tuple[int, ...]]:
    """Height and width of each tensor that depends on the images."""
    sizes = []

    class Recorder(fx.Interpreter):
        def run_node(self, n: fx.Node) -> object:
            value = super().run_node(n)
            if isinstance(value, Tensor) and value.dim() == 4 and value.shape[0] == 5:
                sizes.append(tuple(value.shape[2:]))
            return value

    Recorder(network).run(torch.randn(5, 4, 8, 8))
    return sizes


def test_no_batch_of_images_is_larger_than_in_the_original() -> None:
    model = bottleneck()
    assert set(sizes_of_images(linearized(model))) == {(8, 8)}
    wide = sizes_of_images(linearized(model, own_frames=False))
    # The images; padded, conv, norm, act; conv, norm, act, conv, norm, output.
    assert wide == [(8, 8)] + [(10, 10)] * 4 + [(8, 8)] * 6


def test_training_reaches_the_weights_and_keeps_the_merge_exact() -> None:
    network = linearized(bottleneck()).train()
    sgd = torch.optim.SGD(network.parameters(), lr=0.1)
    before = {n: p.detach().clone() for n, p in network.named_parameters()}
    for _ in range(3):
        output = network(torch.randn(5, 4, 8, 8))
        (output - torch.randn(5, 4, 8, 8)).square().mean().backward()
        sgd.step()
        sgd.zero_grad()
    after = dict(network.named_parameters())
    changed = {n for n, old in before.items() if not torch.equal(old, after[n])}
    # The first bias, before a norm, matters through the border alone.
    assert {"0.weight", "0.bias", "3.weight", "6.weight"} <= changed
    assert merge(network.eval())[1].network_random.float64 < 1e-10
