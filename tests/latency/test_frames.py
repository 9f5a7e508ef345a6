import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpcompress.blueprint import Span, candidates
from dpcompress.latency.frames import (
    READERS,
    FrameCosts,
    copies,
    framed_graph,
    frames_of,
    label,
)
from dpcompress.latency.workload import span_ops
from dpcompress.runner import Engine
from dpcompress.ways.program import Program, Source, Step
from tests.latency.networks import mobilenet_v2, small_residual

MOST = Engine.most_copies
OPS = {op.signature: op for op in span_ops(small_residual(size=64)).values()}
TENSORS = {s.label: s for op in OPS.values() for s in (*op.sources, Source(op.shape))}
SETS = {label(s): s for op in OPS.values() for s, readers in frames_of(op)}

costs = st.fixed_dictionaries({name: st.floats(0.01, 2) for name in TENSORS})
own_times = st.fixed_dictionaries({name: st.floats(0.001, 5) for name in OPS})


@given(
    costs,
    costs,
    st.floats(0.001, 0.5),
    own_times,
    st.sampled_from((1, 8)),
    st.sampled_from((1, MOST)),
)
def test_frames_come_off_exactly(
    made: dict, read: dict, call: float, own: dict, batch: int, most: int
) -> None:
    """If a call, producers, consumers and copies of an op just add up, the op's own time
    comes out, however many tensors it reads."""

    def frame_ms(sources: tuple[Source, ...], readers: int) -> float:
        each = (made[s.label] + readers * read[s.label] for s in sources)
        return call + sum(each)

    once = {name: frame_ms(sources, 1) for name, sources in SETS.items()}
    many = {name: frame_ms((source,), READERS) for name, source in TENSORS.items()}
    frames = FrameCosts(once, many)
    for name, op in OPS.items():
        count = copies(op, batch, most)
        output = read[Source(op.shape).label]
        produced = sum(made[source.label] for source in op.sources)
        timed_ms = call + produced + count * (own[name] + output)
        found_ms = (timed_ms - frames.of(op, count)) / count
        assert found_ms == pytest.approx(own[name], abs=1e-9)


def test_cheap_ops_stand_in_their_frame_several_times() -> None:
    blueprint = mobilenet_v2()
    ops = span_ops(blueprint)
    stem, cheap = (ops[Span(i, i + 1), None] for i in (0, 22))
    count = copies(cheap, 1, MOST)
    assert copies(stem, 1, MOST) < 3 < count <= MOST
    assert copies(cheap, 32, MOST) < count  # the call weighs less
    assert copies(cheap, 1, 1) == 1
    model = onnx.load_from_string(framed_graph(cheap, 1, count))
    heavy = [n for n in model.graph.node if n.op_type == "Conv" and n.attribute]
    assert len(heavy) == count + 1
    assert len(model.graph.output) == count


def test_what_engines_could_share_is_not_copied() -> None:
    """Copies of a step without weights that reads a source only would be merged."""
    shape = (8, 8, 8)
    merged = candidates(small_residual())[Span(0, 1)].conv
    conv = Step("conv", (0,), shape, conv=merged)
    act = Step("act", (0,), shape, act="relu")
    assert copies(Program((Source(shape),), (conv,)), 1, MOST) > 1
    assert copies(Program((Source(shape),), (act, conv)), 1, MOST) == 1
