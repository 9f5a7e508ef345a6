"""Shrunk networks of the zoo merge exactly, fine-tuned and with real images."""

from __future__ import annotations

import pytest
import torch

from dpcompress.depthshrinker import Merger, finetune_fading, mask_groups
from dpcompress.depthshrinker.plans import kept_activations
from dpcompress.graph import merge, trace
from dpcompress.models import load_model
from dpcompress.training import Recipe, load_data, seeded

SIZE = (3, 32, 32)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spec", "by", "free"),
    [
        ("torchvision:mobilenet_v2", "block", True),
        ("timm:efficientnet_lite0", "activation", False),
        ("torchvision:resnet18", "block", False),
    ],
)
def test_fine_tuned_it_merges_exactly(spec: str, by: str, free: bool) -> None:
    torch.set_num_threads(1)
    with seeded(spec):
        model = load_model(spec, None, {"num_classes": 10})
    blueprint, data = trace(model, SIZE), load_data("digits", input_size=SIZE)
    groups = mask_groups(blueprint, by)  # type: ignore[arg-type]
    on = range(1 if by == "block" else 2)  # those of the first block
    kept = kept_activations(blueprint, groups, on)
    plan = Merger(blueprint).plan(kept, free_activations=free)
    gone = [group for n, group in enumerate(groups) if n not in on]
    inside = {p for s in plan.merged for p in range(s.start + 1, s.stop)}
    assert {p for group in gone for p in group} <= inside
    network = finetune_fading(model, plan, data, Recipe(steps=3, batch_size=8, lr=0.01))
    _, certificate = merge(network, data.test.first(2))
    assert certificate.holds and len(certificate.spans) == len(plan.merged) > 1
    assert certificate.network_real is not None
    assert certificate.network_real.float64 < 1e-10
