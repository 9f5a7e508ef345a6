"""The detour for tiny maps changes the way, not the values; memory is used again."""

import platform
import resource

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from dpcompress.training.layout import fast_layout


class Convolutions(TorchDispatchMode):
    """Notes the padding of every convolution that really runs."""

    def __init__(self) -> None:
        super().__init__()
        self.paddings: list[list[int]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten.convolution.default:
            self.paddings.append(list(args[4]))
        return func(*args, **(kwargs or {}))


def gradients(conv: nn.Conv2d, images: Tensor) -> list[Tensor]:
    images = images.clone().requires_grad_()
    output = conv(images)
    (output * torch.linspace(-1, 1, output.numel()).view(output.shape)).sum().backward()
    found = [output.detach(), images.grad, *(p.grad for p in conv.parameters())]
    conv.zero_grad()
    return found


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (1, 5), (3, 2), (4, 4), (5, 5)])
@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 3, "padding": 1},
        {"kernel_size": 3, "padding": 1, "stride": 2},
        {"kernel_size": (5, 3), "padding": (2, 1)},
        {"kernel_size": 3, "padding": "same", "dilation": 2},
    ],
)
def test_values_and_gradients_are_the_same(size, options):
    torch.manual_seed(0)
    conv = nn.Conv2d(6, 12, groups=6, **options).double()
    images = torch.randn(3, 6, *size, dtype=torch.float64)
    expected = gradients(conv, images)
    with fast_layout(conv):
        found = gradients(conv, images)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("size", "groups", "padding"), [(2, 8, 0), (3, 8, 1), (2, 1, 1), (2, 2, 1)]
)
def test_only_depthwise_convolutions_of_tiny_maps_are_padded_before(
    size, groups, padding
):
    conv = nn.Conv2d(8, 8, 3, padding=1, groups=groups)
    with fast_layout(conv), Convolutions() as seen:
        conv(torch.randn(1, 8, size, size))
    assert seen.paddings == [[padding, padding]]


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has mallopt")
def test_freed_tensors_give_their_pages_to_the_next():
    def faults(count: int) -> int:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(count):
            nn.init.ones_(torch.empty(2**24))
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    pages = 2**24 * 4 // resource.getpagesize()
    with fast_layout():
        faults(5)
        assert faults(10) < 5 * pages
