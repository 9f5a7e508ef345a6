"""Merging random chains is exact, and what the arithmetic predicts is what comes out."""

import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import nn

from dpcompress.blueprint import MergedSpan, Span, examine, keep_everything
from dpcompress.graph import linearize, merge, trace
from tests.graph.networks import chains, random_plan, whole_plan


def difference(actual: torch.Tensor, expected: torch.Tensor) -> float:
    return float((actual - expected).abs().max() / expected.abs().max().clamp_min(1e-30))


@given(chains(), st.integers(0, 2**20))
def test_random_plans_merge_exactly(case: tuple[nn.Module, tuple[int, ...]], seed: int):
    model, shape = case
    blueprint = trace(model, shape)
    linear = linearize(model, random_plan(blueprint, seed, candidates=False))
    merged, certificate = merge(linear)
    assert certificate.holds
    images = torch.randn(2, *shape, dtype=torch.float64)
    with torch.no_grad():
        assert difference(merged(images), linear.eval()(images)) < 1e-10


@given(chains(), st.integers(0, 2**20))
def test_own_frames_change_neither_outputs_nor_gradients(
    case: tuple[nn.Module, tuple[int, ...]], seed: int
):
    """In eval mode; in training mode batch statistics leave the border out by design."""
    model, shape = case
    plan = random_plan(trace(model, shape), seed, candidates=False)
    images = torch.randn(2, *shape, dtype=torch.float64)
    networks = [linearize(model, plan, own_frames=own).eval() for own in (True, False)]
    outputs = [network(images) for network in networks]
    assert difference(*(output.detach() for output in outputs)) < 1e-10
    upstream = torch.randn_like(outputs[0])
    for output in outputs:
        output.backward(upstream)
    for (name, own), wide in zip(
        networks[0].named_parameters(), networks[1].parameters(), strict=True
    ):
        assert (own.grad is None) == (wide.grad is None), name
        if own.grad is not None and wide.grad is not None:
            scale = wide.grad.abs().max().clamp_min(1e-6)
            assert (own.grad - wide.grad).abs().max() < 1e-10 * scale, name


@given(chains())
def test_keeping_everything_is_the_original_function(
    case: tuple[nn.Module, tuple[int, ...]],
):
    model, shape = case
    merged, _ = merge(linearize(model, keep_everything(trace(model, shape))))
    images = torch.randn(2, *shape, dtype=torch.float64)
    with torch.no_grad():
        assert difference(merged(images), model(images)) < 1e-10


@given(chains())
def test_inner_pixels_see_no_padding(case: tuple[nn.Module, tuple[int, ...]]):
    """Without activations the linearized network is the original away from the border:
    moving the padding changes nothing there. Shares no code with the merge."""
    model, shape = case
    blueprint = trace(model, shape)
    whole = Span(0, blueprint.depth)
    found = examine(blueprint, whole)
    # Not outputs that see only padding, nor a pool or pad that runs after the conv.
    assume(isinstance(found, MergedSpan) and found.exit == blueprint.output)
    assert isinstance(found, MergedSpan)
    linear = linearize(model, whole_plan(blueprint, [whole])).eval()
    plain = linearize(model, keep_everything(blueprint)).eval()
    acts = {blueprint.layers[p - 1].act for p in range(1, whole.stop)} - {None}
    for node in plain.graph.nodes:
        if node.meta.get("op") in acts:
            node.replace_all_uses_with(node.all_input_nodes[0])
    plain.recompile()
    images = torch.randn(1, *shape, dtype=torch.float64)
    with torch.no_grad():
        moved, original = linear(images), plain(images)
    rows, columns = (
        slice(-(-front // stride), max(size - -(-back // stride), 0))
        for (front, back), stride, size in zip(
            found.conv.padding, found.conv.stride, moved.shape[2:], strict=True
        )
    )
    moved, original = moved[..., rows, columns], original[..., rows, columns]
    if original.numel():
        assert difference(moved, original) < 1e-10


def test_gradients_reach_every_weight_of_a_linearized_network():
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 3)
    )
    blueprint = trace(model, (3, 8, 8))
    linear = linearize(model, whole_plan(blueprint, [(0, 2)])).train()
    linear(torch.randn(2, 3, 8, 8)).square().sum().backward()
    for name, parameter in linear.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
