"""Activations that fade, and training while they do."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from dpcompress.blueprint import Plan
from dpcompress.depthshrinker.fading import faded, finetune_fading
from dpcompress.depthshrinker.features import feature_loss, tapped
from dpcompress.depthshrinker.groups import mask_groups
from dpcompress.depthshrinker.plans import Merger, kept_activations
from dpcompress.errors import IllegalMerge
from dpcompress.graph import Decay, decays, linearize, merge, set_share, trace
from dpcompress.graph.capture import capture
from dpcompress.training import Recipe, state_digest
from tests.depthshrinker.networks import images, inverted, plain
from tests.graph.networks import randomise
from tests.training.networks import small_digits

SIZE = (3, 8, 8)
RECIPE = Recipe(steps=12, batch_size=64, lr=0.05, distill_weight=0.5)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def plan_without(model: nn.Module, *masks_on: int) -> Plan:
    blueprint = trace(model, SIZE)
    groups = mask_groups(blueprint, "activation")
    return Merger(blueprint).plan(kept_activations(blueprint, groups, masks_on))


class Stop(Exception):
    pass


def test_decay_goes_from_the_activation_to_the_identity() -> None:
    x = torch.tensor([-2.0, 3.0, 8.0])
    decay = Decay(nn.ReLU6())
    assert decay(x).tolist() == [0.0, 3.0, 6.0]
    decay.share = 0.25  # 0.75 · relu6(x) + 0.25 · x
    assert decay(x).tolist() == [-0.5, 3.0, 6.5]
    decay.share = 1.0
    assert torch.equal(decay(x), x)


@pytest.mark.parametrize("make", [inverted, plain])
def test_decaying_networks_have_the_state_of_plain_ones(make) -> None:  # type: ignore[no-untyped-def]
    model = make()
    plan = plan_without(model)
    fading, gone = linearize(model, plan, decay=True), linearize(model, plan)
    assert len(decays(fading)) == len(mask_groups(trace(model, SIZE), "activation"))
    assert fading.state_dict().keys() == gone.state_dict().keys()
    assert not torch.allclose(fading(images(SIZE)), gone(images(SIZE)), atol=1e-3)
    set_share(fading, 1.0)
    assert torch.equal(fading(images(SIZE)), gone(images(SIZE)))


def test_nothing_merges_while_activations_decay() -> None:
    model = inverted()
    randomise(model, SIZE)
    network = linearize(model, plan_without(model, 0), decay=True)
    with pytest.raises(IllegalMerge, match="6 of 6 removed activations still work"):
        merge(network)
    set_share(network, 1.0)
    decays(network)[2].share = 0.99
    with pytest.raises(IllegalMerge, match=r"1 of 6 .* share s of the identity is 0\.99"):
        merge(network)
    set_share(network, 1.0)
    assert merge(network)[1].holds


def test_fading_is_over_in_its_share_of_the_training() -> None:
    assert [faded(done, 0.5) for done in (0, 0.25, 0.5, 1)] == [0, 0.5, 1, 1]
    assert faded(0, 0.0) == 1.0


@pytest.mark.parametrize("features", [0.0, 0.5])
def test_a_fine_tuning_that_was_cut_off_ends_with_the_same_bits(
    tmp_path: Path, features: float
) -> None:
    data, model = small_digits(), inverted()
    plan = plan_without(model, 0)
    recipe = RECIPE.model_copy(update={"steps": None, "epochs": 2, "batch_size": 128})

    def stop(done: int, total: int, note: str = "") -> None:
        if done == 10:
            raise Stop

    whole = finetune_fading(model, plan, data, recipe, features=features)
    path = tmp_path / "finetune.checkpoint"
    with pytest.raises(Stop):
        finetune_fading(
            model,
            plan,
            data,
            recipe,
            features=features,
            checkpoint=path,
            progress=stop,
        )
    resumed = finetune_fading(
        model, plan, data, recipe, features=features, checkpoint=path
    )
    assert state_digest(resumed) == state_digest(whole)
    assert {decay.share for decay in decays(whole)} == {1.0}
    loaded = linearize(model, plan)
    loaded.load_state_dict(whole.state_dict())
    assert torch.equal(loaded.eval()(images(SIZE)), whole.eval()(images(SIZE)))
    assert merge(whole, data.test.first(4))[1].holds


def test_features_are_followed() -> None:
    """With features in the loss, those of the trained network are nearer."""
    data, model = small_digits(), inverted()
    plan = plan_without(model, 0)
    ends = [span.stop for span in plan.merged]
    assert ends == [4, 7, 10]
    original = capture(model, SIZE)
    teacher, theirs = tapped(original.network, original.blueprint, ends)
    far = {}
    for weight in (0.0, 10.0):
        recipe = RECIPE.model_copy(update={"distill_weight": 0.0, "steps": 24})
        network = finetune_fading(model, plan, data, recipe, features=weight)
        student, ours = tapped(network, original.blueprint, ends)
        with torch.no_grad():
            for net in (student, teacher):
                net.eval()(data.train.first(64))
        far[weight] = float(feature_loss(ours, theirs))
    assert far[10.0] < 0.7 * far[0.0]
