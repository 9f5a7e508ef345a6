"""A linearized span computes on tensors of the original size where it can."""

import pytest
import torch
from torch import Tensor, fx, nn

from dpcompress.blueprint import Plan
from dpcompress.graph import linearize, merge, trace


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


def linearized(model: nn.Module) -> fx.GraphModule:
    blueprint = trace(model, (4, 8, 8))
    plan = Plan.build((0, 3), (), blueprint=blueprint.digest, input=(4, 8, 8))
    return linearize(model, plan)


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
@torch.no_grad()
def test_it_is_the_function_of_padding_first(
    kernel: int, stride: int, bias: bool
) -> None:
    model = bottleneck(kernel, stride, bias).double()
    images = torch.randn(2, 4, 8, 8, dtype=torch.float64)
    network = linearized(model)
    expected = by_hand(model, images)
    assert torch.allclose(network(images), expected, rtol=0, atol=1e-12)
    _, certificate = merge(network)
    assert certificate.network_random.float64 < 1e-10


def test_no_batch_of_images_is_larger_than_in_the_original() -> None:
    sizes = []

    class Recorder(fx.Interpreter):
        def run_node(self, n: fx.Node) -> object:
            value = super().run_node(n)
            if isinstance(value, Tensor) and value.dim() == 4 and value.shape[0] == 5:
                sizes.append(value.shape[2:])
            return value

    Recorder(linearized(bottleneck())).run(torch.randn(5, 4, 8, 8))
    assert sizes and set(sizes) == {(8, 8)}


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
