"""Channel spaces of known networks, and what the networks themselves say of them."""

from __future__ import annotations

import pytest
import torch
from torch import fx, nn
from torchvision import models

from dpcompress.blueprint import Illegal, Span
from dpcompress.blueprint.spaces import Space, homes, private_spaces, region, spaces
from dpcompress.graph.capture import Captured, capture

NAMES = ("mobilenet_v2", "resnet50", "mobilenet_v3_small", "regnet_y_400mf")


@pytest.fixture(scope="module", params=NAMES)
def captured(request: pytest.FixtureRequest) -> Captured:
    torch.manual_seed(0)
    model = models.get_model(request.param, weights=None).eval()
    for name, module in model.named_modules():
        # A gate that does not depend on what it sees: its channels are told apart then.
        if "fc1" in name and isinstance(module, nn.Conv2d):
            nn.init.zeros_(module.weight)
    return capture(model, (3, 64, 64))


class Shifted(fx.Interpreter):
    """Runs a network with one channel of one op's output shifted."""

    def __init__(self, network: fx.GraphModule, at: int, channel: int) -> None:
        super().__init__(network, garbage_collect_values=False)
        self.at, self.channel = at, channel

    def run_node(self, n: fx.Node) -> object:
        value = super().run_node(n)
        if n.meta.get("op") == self.at:
            value = value.clone()
            value[:, self.channel] += 1.0
        return value


def values(network: fx.GraphModule, at: int = -1, channel: int = 0) -> dict[int, object]:
    run = Shifted(network, at, channel)
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        run.run(images)
    return {n.meta["op"]: value for n, value in run.env.items() if "op" in n.meta}


def test_a_channel_reaches_its_own_space_only_as_itself(captured: Captured):
    """Until a reader mixes it in: the ops of the space have no other channel changed."""
    plain, blueprint = values(captured.network), captured.blueprint
    free = [space for space in spaces(blueprint) if not space.fixed and space.writers]
    for space in free[:: max(1, len(free) // 8)]:
        channel = space.channels // 2
        group = channel // space.unit * space.unit
        own = range(group, group + space.unit)
        shifted = values(captured.network, space.ops[0], channel)
        first_reader = min(space.readers)
        for index in space.ops:
            if index > first_reader:  # a residual stream comes back through its readers
                break
            change = (shifted[index] - plain[index]).abs()
            change = change.reshape(2, space.channels, -1).amax((0, 2))
            others = [c for c in range(space.channels) if c not in own]
            assert change[others].max() == 0, blueprint.ops[index].name


def test_every_tensor_has_one_space(captured: Captured):
    found = spaces(captured.blueprint)
    ops = sorted(index for space in found for index in space.ops)
    assert ops == list(range(len(captured.blueprint.ops)))
    for space in found:
        widths = {captured.blueprint.ops[index].shape[0] for index in space.ops}
        assert widths == {space.channels}
        assert space.channels % space.unit == 0


def private(name: str, start: int, stop: int) -> list[tuple[int, int]]:
    model = models.get_model(name, weights=None).eval()
    found = private_spaces(capture(model, (3, 64, 64)).blueprint, Span(start, stop))
    if isinstance(found, Illegal):
        return []
    return [(space.channels, space.unit) for space in found]


@pytest.mark.parametrize(
    ("name", "start", "stop", "expected"),
    [
        # Worked out from the architectures: an inverted residual has one hidden space,
        ("mobilenet_v2", 5, 8, []),  # a span that is no block
        ("mobilenet_v2", 6, 9, [(144, 1)]),
        # a basic block one, a bottleneck two,
        ("resnet18", 1, 3, [(64, 1)]),
        ("resnet50", 4, 7, [(64, 1), (64, 1)]),
        # and squeeze-excite adds the width of its own vector. Groups stay whole.
        ("mobilenet_v3_large", 12, 15, [(120, 1), (32, 1)]),
        ("regnet_y_400mf", 8, 11, [(104, 8), (12, 1)]),
        ("densenet121", 3, 5, [(128, 1)]),
    ],
)
def test_what_is_private_to_a_block(
    name: str, start: int, stop: int, expected: list[tuple[int, int]]
):
    assert private(name, start, stop) == expected


def test_every_inverted_residual_is_the_home_of_its_hidden_channels():
    blueprint = capture(models.mobilenet_v2().eval(), (3, 64, 64)).blueprint
    found = {
        s: [own.channels for own in spaces] for s, spaces in homes(blueprint).items()
    }
    inputs = [16, 24, 24, 32, 32, 32, *[64] * 4, *[96] * 3, *[160] * 3]
    for block, channels in enumerate(inputs):
        start = 3 + 3 * block
        assert found[Span(start, start + 3)] == [6 * channels]


def test_a_region_says_why_it_is_none():
    blueprint = capture(models.resnet18().eval(), (3, 64, 64)).blueprint
    for span, why in (
        (Span(0, 2), "is also used by"),
        (Span(0, 18), "positions run from 0 to 17"),
    ):
        found = region(blueprint, span)
        assert isinstance(found, Illegal) and why in found.why
    assert isinstance(private_spaces(blueprint, Span(1, 2)), Illegal)
    assert all(isinstance(space, Space) for space in spaces(blueprint))


def test_what_fixes_a_width_is_named():
    blueprint = capture(models.densenet121().eval(), (3, 64, 64)).blueprint
    reasons = {space.fixed for space in spaces(blueprint)}
    assert "it is the network's input" in reasons
    assert any(reason.endswith("concatenation") for reason in reasons)
