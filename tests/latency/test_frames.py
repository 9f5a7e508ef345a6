import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpcompress.blueprint import Span, candidates
from dpcompress.latency.frames import Frame, FramedProgram, copies
from dpcompress.latency.workload import Workload
from dpcompress.runner import Engine
from dpcompress.tables import MERGE, Key
from dpcompress.ways.program import Program, Source, Step
from tests.latency.blueprints import mobilenet_v2, small_residual

MOST = Engine.most_copies
PROGRAMS = {
    framed.program.signature: framed.program
    for framed in Workload(small_residual(size=64), 1, MOST).programs.values()
}
TENSORS = {s for p in PROGRAMS.values() for s in (*p.sources, Source(p.shape))}

costs = st.fixed_dictionaries({tensor: st.floats(0.01, 2) for tensor in TENSORS})
own_times = st.fixed_dictionaries({name: st.floats(0.001, 5) for name in PROGRAMS})


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
    """If a call, producers, consumers and copies of a program just add up, the program's
    own time comes out, however many tensors it reads."""

    def frame_ms(frame: Frame) -> float:
        each = (made[s] + frame.readers * read[s] for s in frame.sources)
        return call + sum(each)

    for name, program in PROGRAMS.items():
        framed = FramedProgram(program, copies(program, batch, most))
        produced = sum(made[source] for source in program.sources)
        each = own[name] + read[Source(program.shape)]
        timed_ms = call + produced + framed.copies * each
        frames_ms = {frame: frame_ms(frame) for frame in framed.frames}
        found_ms = framed.own_ms(timed_ms, frames_ms)
        assert found_ms == pytest.approx(own[name], abs=1e-9)


def test_cheap_programs_stand_in_their_frame_several_times() -> None:
    programs = Workload(mobilenet_v2(), 1, MOST).programs
    stem, cheap = (programs[Key(i, i + 1, MERGE, True)].program for i in (0, 22))
    count = copies(cheap, 1, MOST)
    assert copies(stem, 1, MOST) < 3 < count <= MOST
    assert copies(cheap, 32, MOST) < count  # the call weighs less
    assert copies(cheap, 1, 1) == 1
    model = onnx.load_from_string(FramedProgram(cheap, count).graph(1))
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
