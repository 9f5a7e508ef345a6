"""Fitted convolutions against torch's own least squares on unfolded patches."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from dpcompress.algebra import ConvFit


@st.composite
def problems(draw: st.DrawFn) -> dict[str, object]:
    """Draw a convolution of any shape."""
    pair = st.tuples(st.integers(1, 3), st.integers(1, 3))
    side = st.tuples(st.integers(0, 2), st.integers(0, 2))
    groups = draw(st.sampled_from((1, 1, 2, 3)))
    return {
        "kernel": draw(pair),
        "stride": draw(pair),
        "dilation": draw(pair),
        "padding": draw(st.tuples(side, side)),
        "groups": groups,
        "inputs": groups * draw(st.integers(1, 2)),
        "outputs": groups * draw(st.integers(1, 2)),
    }


def convolve(problem: dict, images: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    (top, bottom), (left, right) = problem["padding"]
    return F.conv2d(
        F.pad(images, (left, right, top, bottom)),
        weight,
        bias,
        problem["stride"],
        0,
        problem["dilation"],
        problem["groups"],
    )


def random(seed: int, *shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def fitting(problem: dict, **options: object) -> ConvFit:
    names = ("kernel", "stride", "dilation", "padding", "groups")
    return ConvFit(**{name: problem[name] for name in names}, **options)


def kernel(problem: dict, seed: int) -> Tensor:
    c_in = problem["inputs"] // problem["groups"]
    return random(seed, problem["outputs"], c_in, *problem["kernel"])


@given(problems())
def test_a_convolution_is_recovered(problem: dict) -> None:
    """The images come in chunks and there is a second target."""
    images = random(1, 24, problem["inputs"], 8, 9)
    weights = kernel(problem, 2), kernel(problem, 3)
    biases = random(4, 2, problem["outputs"])
    fit = fitting(problem)
    for chunk in images.split(7):
        fit.add(
            chunk,
            [
                convolve(problem, chunk, w, b)
                for w, b in zip(weights, biases, strict=True)
            ],
        )
    found = fit.solve(1e-14)
    for one, weight, bias in zip(found, weights, biases, strict=True):
        torch.testing.assert_close(one.weight, weight, atol=1e-8, rtol=0)
        torch.testing.assert_close(one.bias, bias, atol=1e-8, rtol=0)
        assert one.residual < 1e-6


@given(problems(), st.floats(1e-3, 1.0))
def test_ridge_solution_is_that_of_the_stacked_system(
    problem: dict, ridge: float
) -> None:
    """Ordinary least squares with √λ·W as further rows, one group at a time."""
    images = random(1, 6, problem["inputs"], 7, 7)
    target = convolve(problem, images, kernel(problem, 3), random(4, problem["outputs"]))
    target = target + random(5, *target.shape)
    fit = fitting(problem)
    fit.add(images, [target])
    (found,) = fit.solve(ridge)
    groups, per_group = problem["groups"], problem["outputs"] // problem["groups"]
    unexplained = spread = 0.0
    for g in range(groups):
        rows = slice(g * per_group, (g + 1) * per_group)
        patches = unfolded(problem, images.chunk(groups, 1)[g])
        y = target[:, rows].permute(0, 2, 3, 1).flatten(0, 2)
        centred = patches - patches.mean(0)
        scale = (ridge * centred.square().sum(0).mean()).sqrt()
        eye = torch.eye(patches.shape[1], dtype=torch.float64)
        solution = torch.linalg.lstsq(
            torch.cat([centred, scale * eye]),
            torch.cat([y - y.mean(0), y.new_zeros(len(eye), y.shape[1])]),
        ).solution
        torch.testing.assert_close(
            found.weight[rows].flatten(1).T, solution, atol=1e-9, rtol=0
        )
        bias = y.mean(0) - patches.mean(0) @ solution
        torch.testing.assert_close(found.bias[rows], bias, atol=1e-9, rtol=0)
        unexplained += float((patches @ solution + bias - y).square().sum())
        spread += float((y - y.mean(0)).square().sum())
    left = (unexplained / spread) ** 0.5
    assert found.residual == pytest.approx(left, abs=1e-6)


def unfolded(problem: dict, images: Tensor) -> Tensor:
    """The patches of all pixels, (pixels, C·K_h·K_w), as torch unfolds them."""
    (top, bottom), (left, right) = problem["padding"]
    padded = F.pad(images, (left, right, top, bottom))
    columns = F.unfold(
        padded, problem["kernel"], problem["dilation"], 0, problem["stride"]
    )
    return columns.transpose(1, 2).flatten(0, 1)


PLAIN = {
    **{"kernel": (3, 3), "stride": (1, 1), "dilation": (1, 1), "groups": 1},
    **{"padding": ((1, 1), (1, 1)), "inputs": 2, "outputs": 3},
}


def test_a_sample_of_the_pixels_finds_nearly_the_same() -> None:
    images, noise = random(1, 40, 2, 12, 12), random(2, 40, 3, 12, 12)
    weight, bias = kernel(PLAIN, 3), random(4, 3)
    target = convolve(PLAIN, images, weight, bias) + 0.1 * noise
    fits = [fitting(PLAIN), fitting(PLAIN, samples=1200, expected=40)]
    for fit in fits:
        fit.add(images, [target])
    assert [fit.count for fit in fits] == [40 * 144, 1200]
    whole, part = (fit.solve(1e-9)[0] for fit in fits)
    assert 1e-6 < (whole.weight - part.weight).abs().max() < 0.03
    assert part.residual == pytest.approx(whole.residual, rel=0.1)


def test_targets_do_not_touch_each_other() -> None:
    images, target = random(1, 9, 2, 6, 6), random(2, 9, 3, 6, 6)
    found = []
    for others in ([], [random(3, 9, 5, 6, 6)]):
        fit = fitting(PLAIN, samples=80, expected=9)
        fit.add(images, [target, *others])
        found.append(fit.solve()[0])
    assert torch.equal(found[0].weight, found[1].weight)
    assert torch.equal(found[0].bias, found[1].bias)


def test_too_few_samples_and_dead_channels_give_a_finite_solution() -> None:
    """Fewer pixels than unknowns, a channel that is always zero, a constant target."""
    images, target = random(1, 1, 2, 3, 3), random(2, 1, 3, 3, 3)
    images[:, 1] = 0
    target[:, 0] = 7
    fit = fitting(PLAIN)
    fit.add(images, [target])
    for ridge in (1e-4, 0.0):
        (found,) = fit.solve(ridge)
        assert found.weight.isfinite().all() and found.bias.isfinite().all()
        assert found.weight[:, 1].abs().max() < 1e-6
        assert found.weight[0].abs().max() < 1e-6
        assert found.bias[0] == pytest.approx(7, abs=1e-6)
    depthwise = fitting(PLAIN | {"groups": 2})
    depthwise.add(images, [random(2, 1, 2, 3, 3)])
    (found,) = depthwise.solve(0.0)
    assert found.weight.isfinite().all() and (found.weight[1] == 0).all()


def test_sizes_that_do_not_belong_together_are_refused() -> None:
    fit = fitting(PLAIN)
    with pytest.raises(ValueError, match="no samples"):
        fit.solve()
    with pytest.raises(ValueError, match="targets"):
        fit.add(random(1, 2, 2, 6, 6), [random(2, 2, 3, 5, 5)])
    with pytest.raises(ValueError, match="groups"):
        fitting(PLAIN | {"groups": 2}).add(random(1, 2, 2, 6, 6), [random(2, 2, 3, 6, 6)])
