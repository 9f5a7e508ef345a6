"""The algebra against torch's own convolutions, in float64."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from dpcompress import algebra
from dpcompress.algebra import AffineConv
from dpcompress.blueprint import ConvSpec

pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))


def apply(conv: AffineConv, images: Tensor) -> Tensor:
    """Run `conv` on unpadded images."""
    form = conv.form
    dilation = [s or 1 for s in form.spacing]
    return F.conv2d(images, conv.weight, conv.bias, form.stride, 0, dilation, form.groups)


def spec_of(weight: Tensor, groups: int = 1, **rest: object) -> ConvSpec:
    """The shape of a convolution with this kernel."""
    return ConvSpec(
        in_channels=weight.shape[1] * groups,
        out_channels=weight.shape[0],
        kernel=tuple(weight.shape[2:]),
        groups=groups,
        **rest,
    )


@st.composite
def convs(draw, channels: int) -> tuple[dict, int]:
    groups = draw(st.sampled_from([g for g in (1, 2, 4) if channels % g == 0]))
    out = groups * draw(st.integers(1, 2))
    kernel = draw(pairs)
    return {
        "weight": torch.randn(out, channels // groups, *kernel, dtype=torch.float64),
        "bias": torch.randn(out, dtype=torch.float64) if draw(st.booleans()) else None,
        "stride": draw(pairs),
        "dilation": draw(pairs),
        "groups": groups,
    }, out


@given(st.data())
def test_composition_is_one_conv_after_the_other(data):
    torch.manual_seed(data.draw(st.integers(0, 99)))
    images = expected = torch.randn(2, 4, 40, 37, dtype=torch.float64)
    total, channels = algebra.dirac(4, images.new_zeros(())), 4
    for _ in range(data.draw(st.integers(1, 3))):
        conv, channels = data.draw(convs(channels))
        shape = {name: conv[name] for name in ("stride", "dilation", "groups")}
        spec = spec_of(conv["weight"], **shape)
        total = algebra.compose(total, conv["weight"], conv["bias"], spec)
        if min(expected.shape[2:]) < 8:
            break
        expected = F.conv2d(
            expected,
            conv["weight"],
            conv["bias"],
            conv["stride"],
            0,
            conv["dilation"],
            conv["groups"],
        )
    else:
        actual = apply(total, images)
        height, width = expected.shape[2:]
        actual = actual[..., :height, :width]
        assert actual.shape == expected.shape
        assert torch.allclose(actual, expected, rtol=1e-10, atol=1e-10)


def test_depthwise_after_depthwise_stays_depthwise_and_a_tap_costs_nothing():
    start = algebra.dirac(6, torch.zeros((), dtype=torch.float64))
    wide = torch.randn(6, 1, 3, 3, dtype=torch.float64)
    tap = torch.randn(6, 1, 1, 1, dtype=torch.float64)
    first = algebra.compose(start, wide, None, spec_of(wide, 6, dilation=(2, 2)))
    both = algebra.compose(first, tap, None, spec_of(tap, 6))
    assert both.weight.shape == (6, 1, 3, 3)
    assert both.form.spacing == (2, 2)
    assert both.form.groups == 6


def test_addition_aligns_kernels_by_their_padding():
    """3x3 with padding 1, 1x1 and identity: RepVGG's block, by hand."""
    torch.manual_seed(0)
    images = torch.randn(1, 2, 7, 8, dtype=torch.float64)
    start = algebra.dirac(2, images.new_zeros(()))
    wide = torch.randn(2, 2, 3, 3, dtype=torch.float64)
    narrow = torch.randn(2, 2, 1, 1, dtype=torch.float64)
    total = algebra.add(
        algebra.add(
            algebra.compose(start, wide, None, spec_of(wide, padding=((1, 1), (1, 1)))),
            algebra.compose(start, narrow, None, spec_of(narrow)),
        ),
        start,
    )
    assert total.weight.shape == (2, 2, 3, 3)
    assert total.form.kernel == (3, 3)
    assert total.form.offset == (1, 1)
    assert total.form.groups == 1
    expected = F.conv2d(images, wide, padding=1) + F.conv2d(images, narrow) + images
    actual = F.conv2d(images, total.weight, total.bias, padding=1)
    assert torch.allclose(actual, expected, rtol=1e-12, atol=1e-12)


def test_regrouping_keeps_the_function():
    torch.manual_seed(0)
    images = torch.randn(1, 8, 5, 5, dtype=torch.float64)
    weight = torch.randn(12, 2, 3, 3, dtype=torch.float64)
    for coarser in (1, 2, 4):
        wide = algebra.regroup(weight, 4, coarser)
        assert wide.shape[1] == 8 // coarser
        assert torch.allclose(
            F.conv2d(images, wide, groups=coarser), F.conv2d(images, weight, groups=4)
        )


def test_norm_folds_with_its_own_eps():
    torch.manual_seed(0)
    norm = torch.nn.BatchNorm2d(3, eps=0.3).double().eval()
    norm.running_var.uniform_(0.01, 2)
    norm.running_mean.normal_()
    images = torch.randn(1, 3, 4, 4, dtype=torch.float64)
    factors = algebra.norm_factors(
        norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
    )
    folded = algebra.scale(algebra.dirac(3, images), *factors)
    assert torch.allclose(apply(folded, images), norm(images), rtol=1e-12, atol=1e-12)
