import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpcompress.blueprint import Span, candidates
from dpcompress.latency.frames import FrameCosts, frame_sources
from dpcompress.latency.ops import TimedOp, span_op
from tests.latency.networks import mobilenet_v2

BLUEPRINT = mobilenet_v2(32)
# Without residual adds around a span, each position's frame is met exactly twice.
CHAIN = [
    span_op(BLUEPRINT, candidates(BLUEPRINT)[Span(i, i + 1)], True) for i in range(5)
]
LABELS = {s.label: s for op in CHAIN for s in frame_sources(op)}


def framed_ms(op: TimedOp, own_ms: float, call: float, made: dict, read: dict) -> float:
    """What a frame would show if an op, a call, producers and consumers just added up."""
    producers = sum(made[s.label] for s in op.sources if not s.raw)
    consumer = read["x".join(map(str, op.shape))]
    return own_ms + call + producers + consumer


costs = st.fixed_dictionaries({label: st.floats(0.01, 2) for label in LABELS})


own_times = st.lists(st.floats(0.1, 5), min_size=5, max_size=5)


@given(costs, costs, costs, st.floats(0.001, 0.1), own_times)
def test_frames_come_off_exactly(
    made: dict, read: dict, second: dict, call: float, own: list[float]
) -> None:
    """Each op's own time comes out; and where a second consumer costs something else
    than the first, single ops are off but the sum along the chain is not, except for
    the last consumer."""
    once = {k: call + made[k] + read[k] for k in LABELS}
    honest = FrameCosts(call, once, {k: once[k] + read[k] for k in LABELS})
    skewed = FrameCosts(call, once, {k: once[k] + second[k] for k in LABELS})
    times = [
        framed_ms(op, ms, call, made, read) for op, ms in zip(CHAIN, own, strict=True)
    ]
    for op, time, ms in zip(CHAIN, times, own, strict=True):
        assert time - honest.of(op) == pytest.approx(ms, abs=1e-9)
    total = sum(time - skewed.of(op) for op, time in zip(CHAIN, times, strict=True))
    last = "x".join(map(str, CHAIN[-1].shape))
    assert total - (read[last] - second[last]) == pytest.approx(sum(own), abs=1e-9)
