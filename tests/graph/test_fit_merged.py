"""Fitted spans: exact where they can be, better than alone where they cannot."""

from __future__ import annotations

import json

import pytest
import torch
from torch import Tensor, nn

from dpcompress.blueprint import Plan, Span, examine, keep_everything
from dpcompress.errors import BadInput
from dpcompress.graph import (
    FitReport,
    build,
    fit_merged,
    linearize,
    merge,
    trace,
    with_norms,
    without_norms,
)
from dpcompress.graph.original import Original
from dpcompress.graph.span_fit import UNKNOWNS, begin_fit, whole_kernel
from dpcompress.importance import plan_of
from dpcompress.tables import ScoreKey
from tests.training.networks import tiny

SHAPE = (3, 8, 8)


def images(count: int, seed: int = 0, shape: tuple[int, int, int] = SHAPE) -> Tensor:
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(seed))


def settled(model: nn.Module, shape: tuple[int, int, int] = SHAPE) -> nn.Module:
    """With batch norms that have seen data, and differ from channel to channel."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = None
                module.weight.uniform_(0.5, 2, generator=generator)
                module.bias.uniform_(-1, 1, generator=generator)
        model.train()(images(64, 2, shape))
    return model.eval()


class Linear(nn.Module):
    """Three convs without activations, a skip over the last two, padding in front."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Sequential(
            nn.Conv2d(3, 6, 3, stride, padding=1, bias=False), nn.BatchNorm2d(6)
        )
        self.second = nn.Sequential(nn.Conv2d(6, 6, 1, groups=2), nn.Conv2d(6, 6, 1))
        self.head = nn.Sequential(nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.head(x + self.second(x))


@pytest.mark.parametrize("stride", [1, 2])
def test_a_linear_span_is_recovered(stride: int) -> None:
    model = settled(Linear(stride))
    blueprint = trace(model, SHAPE)
    plan = Plan.build((0, 3), (3,), blueprint=blueprint.digest, input=SHAPE)
    expected, _ = merge(linearize(model, plan))
    fitted, report = fit_merged(model, plan, images(64), ridge=1e-9)
    assert fitted.state_dict().keys() == expected.state_dict().keys()
    for name, value in expected.state_dict().items():
        torch.testing.assert_close(fitted.state_dict()[name], value, atol=1e-4, rtol=0)
    assert report.spans[0].residual < 1e-3
    torch.testing.assert_close(fitted(images(4, 3)), model(images(4, 3)))


def test_one_span_alone_is_what_the_estimator_looks_at() -> None:
    """`outputs` runs the rest of the network only; the fitted network runs as a whole."""
    model = settled(tiny())
    original = Original(model, SHAPE)
    for entry in (
        ScoreKey(1, 4, "merge", True, False),
        ScoreKey(1, 3, "merge", True, True),
        ScoreKey(2, 4, "merge", True, False),
    ):
        span = examine(original.blueprint, entry.span)
        convs = original.fit_spans([span], images(40))
        plain, (output,) = original.outputs(images(5, 3), [span], convs)
        network, report = fit_merged(
            model, plan_of(original.blueprint, entry), images(40)
        )
        torch.testing.assert_close(plain, model(images(5, 3)), atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(output, network(images(5, 3)), atol=1e-4, rtol=1e-4)
        assert report.spans[0].residual == pytest.approx(convs[0].residual, rel=1e-3)
        assert not torch.allclose(output, plain, atol=1e-2)


def test_spans_fitted_together_are_as_if_alone() -> None:
    original = Original(settled(tiny()), SHAPE)
    spans = [examine(original.blueprint, Span(1, stop)) for stop in (2, 3, 4)]
    together = original.fit_spans(spans, images(40))
    for span, conv in zip(spans, together, strict=True):
        (alone,) = original.fit_spans([span], images(40))
        assert torch.equal(conv.weight, alone.weight)
        assert torch.equal(conv.bias, alone.bias)


class Blocks(nn.Module):
    """Residual blocks of two layers behind a stem."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)

        def layer(inputs: int, outputs: int) -> nn.Sequential:
            conv = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
            return nn.Sequential(conv, nn.BatchNorm2d(outputs))

        self.stem = layer(3, 8)
        self.blocks = nn.ModuleList(
            nn.Sequential(layer(8, 8), nn.ReLU(), layer(8, 8)) for _ in range(3)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        for block in self.blocks:
            x = (x + block(x)).relu()
        return x.mean((2, 3))


def test_front_to_back_makes_up_for_earlier_errors() -> None:
    model = settled(Blocks())
    blueprint = trace(model, SHAPE)
    plan = Plan.build((0, 1, 3, 5, 7), (1, 3, 5, 7), blueprint=blueprint.digest,
                      input=SHAPE)  # fmt: skip
    together, report = fit_merged(model, plan, images(200))
    alone = build(model, plan)
    original = Original(model, SHAPE)
    for start, stop in plan.merged:
        (conv,) = original.fit_spans([examine(blueprint, Span(start, stop))], images(200))
        module = alone.get_submodule(blueprint.ops[blueprint.layers[stop - 1].conv].name)
        module.weight.data, module.bias.data = conv.weight.float(), conv.bias.float()
    unseen = images(100, 5)
    with torch.no_grad():
        unfitted = build(model, plan)
        networks = (together, alone, unfitted)
        errors = [(net(unseen) - model(unseen)).square().mean() for net in networks]
    assert errors[0] < 0.9 * errors[1] < 0.9 * errors[2]
    assert [s.residual < 1 for s in report.spans] == [True] * 3


def test_single_layers_and_the_original_stay_as_they_are() -> None:
    model = settled(tiny())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    plan = keep_everything(trace(model, SHAPE))
    network, report = fit_merged(model, plan, images(16))
    assert report.spans == ()
    torch.testing.assert_close(network(images(4)), model(images(4)), atol=1e-5, rtol=1e-4)
    assert all(torch.equal(before[n], v) for n, v in model.state_dict().items())


def test_report_says_that_it_was_fitted() -> None:
    model = settled(tiny())
    plan = plan_of(trace(model, SHAPE), ScoreKey(1, 4, "merge", True, False))
    calls: list[tuple[int, int]] = []

    def progress(done: int, total: int, note: str = "") -> None:
        calls.append((done, total))

    _, report = fit_merged(model, plan, images(20), progress=progress)
    said = json.loads(report.to_json())
    assert said["kind"] == "fitted" and said["images"] == 20
    assert FitReport.from_json(report.to_json()) == report
    assert report.plan == plan
    (span,) = said["spans"]
    assert (span["start"], span["stop"], span["kernel"]) == (1, 4, [3, 3])
    assert 0 < span["residual"] < 1
    assert calls == [(0, 1), (1, 1)]


def test_of_a_huge_kernel_only_the_middle_is_fitted() -> None:
    shape = (64, 16, 16)
    torch.manual_seed(0)
    convs = [nn.Conv2d(64, 64, 9, padding=4, groups=64), nn.Conv2d(64, 4, 7, padding=3)]
    model = nn.Sequential(*convs, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    original = Original(model, shape)
    span = examine(original.blueprint, Span(0, 2))
    fit = begin_fit(span.conv, 1)
    assert span.conv.kernel == (15, 15) and fit.kernel == (9, 9)
    assert 64 * 81 <= UNKNOWNS < 64 * 100
    inputs, targets = images(1, 0, shape), torch.randn(1, 4, 16, 16)
    fit.add(inputs, [targets])
    small = fit.solve()[0]
    whole = whole_kernel(span.conv, small).weight
    assert whole.shape[2:] == (15, 15) and torch.equal(
        whole[..., 3:-3, 3:-3], small.weight
    )
    padded = nn.functional.conv2d(inputs.double(), whole, padding=7)
    expected = nn.functional.conv2d(inputs.double(), small.weight, padding=4)
    torch.testing.assert_close(padded, expected)


def test_too_few_images_or_of_another_size_are_refused() -> None:
    model = settled(tiny())
    plan = keep_everything(trace(model, SHAPE))
    for wrong in (images(3), images(20, 0, (3, 16, 16))):
        with pytest.raises(BadInput, match="cannot be fitted on"):
            fit_merged(model, plan, wrong)


def test_norms_change_nothing_and_fold_away() -> None:
    model = settled(tiny())
    plan = plan_of(trace(model, SHAPE), ScoreKey(1, 4, "merge", True, False))
    network, _ = fit_merged(model, plan, images(40))
    names, unseen = network.state_dict().keys(), images(8, 4)
    expected = network(unseen)
    with_norms(network, images(100))
    normed = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(normed) == len(plan.spans)
    torch.testing.assert_close(network(unseen), expected, atol=1e-4, rtol=1e-4)
    network.train()
    moved = torch.optim.SGD(network.parameters(), 0.1)
    network(images(32, 6)).square().sum().backward()
    moved.step()
    trained = network.eval()(unseen)
    without_norms(network)
    assert network.state_dict().keys() == names
    torch.testing.assert_close(network(unseen), trained, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(trained, expected, atol=1e-2)
