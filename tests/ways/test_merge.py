"""What an engine runs for merged spans."""

from collections import Counter

import pytest

from dpcompress.blueprint import Blueprint, Span, candidates
from dpcompress.ways import merge
from tests.latency.blueprints import mobilenet_v2, small_residual


def signature(blueprint: Blueprint, start: int, stop: int, act_stop: bool) -> str:
    merged = candidates(blueprint)[Span(start, stop)]
    return merge.program(blueprint, merged, act_stop).signature


@pytest.mark.parametrize(
    ("start", "stop", "act_stop", "wanted"),
    [
        (0, 1, True, "raw3x16x16 > conv16k3s2p1(0) relu6(1)"),
        (0, 1, False, "raw3x16x16 > conv16k3s2p1(0)"),
        # The skip of the inverted residual lies inside: it is part of the kernel.
        (1, 4, False, "16x8x8 > conv16k3p1(0)"),
        (1, 4, True, "16x8x8 > conv16k3p1(0) relu6(1)"),
        # It goes around: the add runs besides, with a tensor from elsewhere.
        (2, 4, False, "32x8x8,16x8x8 > conv16k3p1(0) add(1,2)"),
        (2, 4, True, "32x8x8,16x8x8 > conv16k3p1(0) add(1,2) relu6(3)"),
        # So does the projection, whose norm is folded.
        (5, 6, False, "32x4x4,16x8x8 > conv32k3p1(0) conv32k1s2(1) add(2,3)"),
        (5, 6, True, "32x4x4,16x8x8 > conv32k3p1(0) conv32k1s2(1) add(2,3) relu6(4)"),
        # Here it is inside as well.
        (4, 6, True, "16x8x8 > conv32k7s2p3(0) relu6(1)"),
        (2, 3, True, "32x8x8 > conv32k3p1g32(0) relu6(1)"),
    ],
)
def test_what_runs_for_a_span(start: int, stop: int, act_stop: bool, wanted: str) -> None:
    assert signature(small_residual(), start, stop, act_stop) == wanted


def test_equal_spans_share_a_program() -> None:
    blueprint = mobilenet_v2(224)
    found = Counter(
        merge.program(blueprint, merged, True).signature
        for merged in candidates(blueprint).values()
    )
    # Blocks 2 to 4 of the fourth stage (64 channels, 14×14) are alike.
    assert found["64x14x14 > conv384k1(0) relu6(1)"] == 4
    assert len(found) < 0.85 * sum(found.values())
