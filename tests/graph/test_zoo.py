"""Known networks: they trace, merge exactly, and what should merge does."""

import copy

import pytest
import torch
from torch import nn

from dpcompress.blueprint import (
    MergedSpan,
    Span,
    barriers,
    candidates,
    examine,
    keep_everything,
    skips,
)
from dpcompress.graph import linearize, merge, merge_unchecked, trace
from dpcompress.models import load_model
from tests.graph.networks import legal, random_plan, randomise, whole_plan

SMALL = (3, 47, 64)
NETWORKS = [
    "torchvision:mobilenet_v2",
    "torchvision:mobilenet_v3_large",
    "torchvision:resnet18",
    "torchvision:regnet_y_400mf",
    "torchvision:shufflenet_v2_x1_0",
    "timm:efficientnet_lite0",
    "timm:tf_efficientnet_lite0",
    "timm:repvgg_a0",
]


def network(spec: str, shape: tuple[int, int, int] = SMALL) -> nn.Module:
    if spec.startswith("timm:"):
        pytest.importorskip("timm")
    torch.manual_seed(0)
    model = load_model(spec)
    randomise(model, shape)
    return model


@pytest.mark.slow
@pytest.mark.parametrize("spec", NETWORKS)
def test_linearized_and_merged_agree(spec: str):
    model = network(spec)
    blueprint = trace(model, SMALL)
    for seed in range(3):
        linear = linearize(model, random_plan(blueprint, seed))
        randomise(linear, SMALL, seed)
        wide = linearize(model, random_plan(blueprint, seed), own_frames=False).double()
        wide.load_state_dict(linear.state_dict())
        images = torch.randn(2, *SMALL, dtype=torch.float64)
        with torch.no_grad():
            expected = wide(images)
            actual = copy.deepcopy(linear).double()(images)
            assert (actual - expected).abs().max() < 1e-10 * expected.abs().max()
        merged, certificate = merge(linear)
        assert certificate.network_random.float64 < 1e-10
        assert certificate.network_random.float32 < 1e-4
        assert sum(isinstance(m, nn.Conv2d) for m in merged.modules()) < sum(
            isinstance(m, nn.Conv2d) for m in model.modules()
        )
    double = model.double()
    kept = merge_unchecked(linearize(double, keep_everything(blueprint)))
    images = torch.randn(2, *SMALL, dtype=torch.float64)
    with torch.no_grad():
        expected = double(images)
        assert (kept(images) - expected).abs().max() < 1e-10 * expected.abs().max()


def test_every_published_span_is_legal(shared):
    """The authors' chain lacks the stem: their position p is p + 1 here."""
    rows = (shared / "reference_tables" / "mbv2_1.0_t.csv").read_text().splitlines()[1:]
    spans = {Span(*(int(v) + 1 for v in row.split(",")[1:3])) for row in rows}
    found = legal(trace(load_model("torchvision:mobilenet_v2"), (3, 224, 224)))
    assert len(spans) == 171
    assert spans <= found


def test_mobilenet_v2_is_one_chain_with_ten_skips():
    blueprint = trace(load_model("torchvision:mobilenet_v2"), (3, 224, 224))
    assert blueprint.depth == 52
    assert barriers(blueprint) == (0, 52)
    published = [(5, 8), (11, 14), (14, 17), (20, 23), (23, 26), (26, 29), (32, 35)]
    published += [(35, 38), (41, 44), (44, 47)]
    expected = [(a + 1, b + 1) for a, b in published]
    assert [(s.source, s.target) for s in skips(blueprint)] == expected
    assert len(legal(blueprint)) == 578


@pytest.mark.parametrize(
    "spec",
    [
        "torchvision:mobilenet_v2",
        "torchvision:mnasnet1_0",
        "timm:efficientnet_lite0",
        "timm:fbnetc_100",
        "timm:mobilenetv4_conv_small",
    ],
)
def test_every_inverted_residual_can_become_one_conv(spec: str):
    """From one position without an activation, where a block ends, to the next."""
    if spec.startswith("timm:"):
        pytest.importorskip("timm")
    blueprint = trace(load_model(spec), (3, 224, 224))
    ends = [p for p in range(1, blueprint.depth + 1) if not blueprint.has_activation(p)]
    assert len(ends) >= 16
    for block in map(Span, [1, *ends], ends):
        assert isinstance(examine(blueprint, block), MergedSpan), block


@pytest.mark.parametrize("spec", ["torchvision:resnet18", "torchvision:resnet34"])
def test_every_basic_block_can_become_one_conv(spec: str):
    blueprint = trace(load_model(spec), (3, 224, 224))
    for start in range(1, blueprint.depth, 2):
        merged = examine(blueprint, Span(start, start + 2))
        assert isinstance(merged, MergedSpan)
        assert merged.tail == (blueprint.layers[start + 1].act,)
    model = load_model("torchvision:resnet18")
    randomise(model, SMALL)
    small = trace(model, SMALL)
    every = [(s, s + 2) for s in range(1, small.depth, 2)]
    merged_network, _ = merge(linearize(model, whole_plan(small, every)))
    convs = [m for m in merged_network.modules() if isinstance(m, nn.Conv2d)]
    assert len(convs) == 1 + 8


@pytest.mark.parametrize("name", ["repvgg_a0", "mobileone_s0"])
def test_parallel_branches_collapse_to_the_deploy_form(name: str):
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=7)
    randomise(model, SMALL)
    images = torch.randn(1, *SMALL)
    plan = keep_everything(trace(model, SMALL))
    merged, certificate = merge(linearize(model, plan), images)
    # Every layer has parallel branches, so every layer's merge is proved.
    assert len(certificate.spans) == len(plan.spans)
    deploy = timm.utils.reparameterize_model(model.eval())

    def convs(network: nn.Module) -> list[tuple[int, ...]]:
        found = (m for m in network.modules() if isinstance(m, nn.Conv2d))
        return sorted(tuple(m.weight.shape) for m in found)

    assert convs(merged) == convs(deploy)
    with torch.no_grad():
        expected = deploy(images)
        assert (merged(images) - expected).abs().max() < 1e-3 * expected.abs().max()


def test_candidates_are_within_their_limits():
    blueprint = trace(load_model("torchvision:mobilenet_v2"), (3, 224, 224))
    found = candidates(blueprint)
    for span, merged in found.items():
        if span.length > 1:
            assert merged.macs <= 8 * merged.parts_macs
            assert merged.conv.weights * 4 <= 64e6
    assert 52 <= len(found) < 250
