"""The proof of a merge can fail, says why, and can be written and read."""

import json

import pytest
import torch
from torch import nn

from dpcompress.blueprint import Plan
from dpcompress.errors import BadInput, VerificationFailed
from dpcompress.graph import certify, linearize, merge, merge_unchecked
from dpcompress.graph.certificate import Certificate, Difference, SpanProof

PLAN = Plan.build((0, 2), (), input=(3, 8, 8))


def two_convs() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 5, 3, padding=1))


def test_what_is_written_is_read_and_judged_anew() -> None:
    _, certificate = merge(linearize(two_convs(), PLAN), torch.randn(2, 3, 8, 8))
    said = json.loads(certificate.to_json())
    assert said["holds"] is True and said["kind"] == "exact"
    assert Certificate.from_json(certificate.to_json()) == certificate
    said["network_real"]["float64"] = 1e-3
    assert not Certificate.from_json(json.dumps(said)).holds
    said["spans"][0].pop("kernel")
    with pytest.raises(BadInput, match=r"spans\.0\.kernel: Field required"):
        Certificate.from_json(json.dumps(said))


def test_a_wrong_merge_is_not_certified() -> None:
    """The check can fail: one weight off by a millionth, one by NaN."""
    linear = linearize(two_convs(), PLAN)
    for change in (1e-6, float("nan")):
        merged = merge_unchecked(linear)
        next(merged.parameters()).data.view(-1)[0] += change
        with pytest.raises(VerificationFailed, match="span 0 to 2"):
            certify(linear, merged).require()


def test_a_failed_certificate_says_whether_the_merge_or_rounding_is_to_blame() -> None:
    good = Difference(float64=1e-14, float32=3.9e-4, rounding=1e-4)
    rough = Difference(float64=1e-14, float32=4.1e-4, rounding=1e-4)
    wrong = Difference(float64=1e-3, float32=1e-3, rounding=1e-4)
    Certificate(plan=PLAN, network_random=good, network_real=good).require()
    with pytest.raises(VerificationFailed, match="exact, but in float32 the output"):
        Certificate(plan=PLAN, network_random=good, network_real=rough).require()
    with pytest.raises(VerificationFailed, match="not the linearized one: the output"):
        Certificate(plan=PLAN, network_random=good, network_real=wrong).require()
    span = SpanProof(
        start=2, stop=5, kernel=(3, 3), random=good, real=rough, range_growth=1.0
    )
    with pytest.raises(VerificationFailed, match=r"float32 span 2 to 5 .* 4\.1e-04"):
        wrong_too = {"network_random": good, "network_real": wrong}
        Certificate(plan=PLAN, spans=(span,), **wrong_too).require()
