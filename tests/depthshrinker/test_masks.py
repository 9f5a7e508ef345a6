"""Which activations are masked, and what a masked network computes."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from dpcompress.depthshrinker.groups import check_keep, mask_groups
from dpcompress.depthshrinker.masks import insert_masks
from dpcompress.errors import BadInput, UsageError
from dpcompress.graph import trace
from tests.depthshrinker.networks import basic, images, inverted, plain
from tests.graph.networks import randomise

SIZE = (3, 8, 8)


def test_every_activation_that_something_merges_over_has_a_mask() -> None:
    # The last activation stands before pooling; 4, 7 and 10 are linear in the original.
    assert mask_groups(trace(inverted(), SIZE), "activation") == tuple(
        (p,) for p in (1, 2, 3, 5, 6, 8, 9)
    )
    # Both residual blocks as one kernel are larger than 8x8, so 3 stays there.
    assert mask_groups(trace(basic(), SIZE), "activation") == ((1,), (2,), (4,))
    large = trace(basic(), (3, 16, 16))
    assert mask_groups(large, "activation") == ((1,), (2,), (3,), (4,))


def test_blocks_are_residual_blocks_and_what_lies_between_them() -> None:
    # The stem's activation is where the first skip starts: a block edge.
    assert mask_groups(trace(inverted(), SIZE), "block") == ((2, 3), (5, 6), (8, 9))
    # The activation after the add stays: the block merges with it in place.
    assert mask_groups(trace(basic(), SIZE), "block") == ((2,), (4,))


def test_no_residual_blocks_no_masks_by_block() -> None:
    blueprint = trace(plain(), SIZE)
    with pytest.raises(BadInput, match=r"no residual blocks.*--by activation"):
        mask_groups(blueprint, "block")
    pointwise = nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU(), nn.Conv2d(3, 3, 1))
    barred = nn.Sequential(
        nn.Conv2d(3, 3, 1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(3, 3, 1)
    )
    assert mask_groups(trace(pointwise, SIZE), "activation") == ((1,),)
    with pytest.raises(BadInput, match="no activation to remove"):
        mask_groups(trace(barred, SIZE), "activation")


@pytest.mark.parametrize("keep", [0, -1, 8])
def test_a_number_that_cannot_be_kept(keep: int) -> None:
    groups = mask_groups(trace(inverted(), SIZE), "activation")
    with pytest.raises(UsageError, match=r"7 activations that could go.*Keep 1 to 7"):
        check_keep(groups, keep, "activation")


def test_all_masks_on_is_the_network_itself() -> None:
    model = inverted()
    randomise(model, SIZE)
    network, masks = insert_masks(
        model, SIZE, mask_groups(trace(model, SIZE), "activation")
    )
    assert torch.equal(network(images(SIZE)), model(images(SIZE)))
    names = dict(network.named_parameters()).keys() - {"masks.scores"}
    assert names == dict(model.named_parameters()).keys()
    assert len(masks.on()) == 7


def test_masks_off_are_identities() -> None:
    model = inverted()
    randomise(model, SIZE)
    network, masks = insert_masks(model, SIZE, mask_groups(trace(model, SIZE), "block"))
    with torch.no_grad():
        masks.scores.copy_(torch.tensor([0.2, -0.1, 0.3]))
    masks.keep = 2
    assert masks.on() == [0, 2]
    by_hand = copy.deepcopy(model)
    body = by_hand[3].body  # layers 5 to 7
    body[2], body[5] = nn.Identity(), nn.Identity()
    assert torch.equal(network(images(SIZE)), by_hand(images(SIZE)))
    masks.keep = 1
    assert masks.on() == [2]


def test_of_equal_scores_the_first_masks_are_on() -> None:
    model = inverted()
    _, masks = insert_masks(model, SIZE, mask_groups(trace(model, SIZE), "activation"))
    masks.keep = 3
    assert masks.on() == [0, 1, 2]


def test_the_gradient_goes_straight_through_the_hard_mask() -> None:
    """Against finite differences of a network that mixes with real numbers."""
    model = plain().double()
    randomise(model, SIZE)
    groups = mask_groups(trace(model, SIZE), "activation")
    network, masks = insert_masks(model, SIZE, groups)
    with torch.no_grad():
        masks.scores.copy_(torch.tensor([0.5, 0.1]))
    masks.keep = 1
    x = images(SIZE).double()
    network(x).square().sum().backward()

    def loss(first: float, second: float) -> float:
        value = x
        for number, layer in enumerate(model):
            mask = {2: first, 5: second}.get(number, 1.0)
            value = mask * layer(value) + ((1 - mask) * value if mask != 1.0 else 0)
        return float(value.square().sum().detach())

    step = 1e-6
    numeric = [
        (loss(1 + step, 0) - loss(1 - step, 0)) / (2 * step),
        (loss(1, step) - loss(1, -step)) / (2 * step),
    ]
    assert masks.scores.grad is not None
    assert masks.scores.grad.tolist() == pytest.approx(numeric, rel=1e-5)
