import pytest

from dpcompress.blueprint import Blueprint, Span, candidates
from dpcompress.latency.workload import Workload, ends_with_free_activation
from dpcompress.tables import MERGE, Key
from dpcompress.ways import merge
from tests.latency.blueprints import mobilenet_v2, small_residual

RESIDUAL = small_residual()


def test_only_a_clamp_of_a_conv_is_free() -> None:
    def free(act: str, stop: int, start: int) -> bool:
        blueprint = small_residual(act)
        merged = candidates(blueprint)[Span(start, stop)]
        return ends_with_free_activation(merge.program(blueprint, merged, True))

    assert free("relu6", 2, 1)
    assert not free("silu", 2, 1)
    assert not free("relu6", 4, 3)  # after an add


def test_every_candidate_has_a_program_with_and_without_its_activation() -> None:
    work = Workload(RESIDUAL, 1, 8)
    flags = (False, True)
    assert work.programs.keys() == {
        Key(*span, MERGE, flag) for span in candidates(RESIDUAL) for flag in flags
    }
    # A clamp after a conv costs nothing; one after an add is a step of its own.
    free, after_add = (
        [work.programs[Key(i, i + 1, MERGE, flag)].program for flag in flags]
        for i in (0, 3)
    )
    assert free[0] == free[1]
    assert len(after_add[1].steps) == len(after_add[0].steps) + 1


@pytest.mark.parametrize("blueprint", [RESIDUAL, mobilenet_v2(32)])
def test_each_graph_is_there_once_and_all_that_a_program_needs(
    blueprint: Blueprint,
) -> None:
    work = Workload(blueprint, 1, 8)
    subjects = [graph.subject for graph in work.graphs]
    assert len({*subjects}) == len(subjects)
    for framed in work.programs.values():
        needed = {framed.program.signature, *(frame.name for frame in framed.frames)}
        assert needed <= {*subjects}


def test_depthwise_programs_are_a_kind_of_their_own() -> None:
    kinds = {graph.subject: graph.kind for graph in Workload(RESIDUAL, 1, 8).graphs}
    depthwise = {subject for subject, kind in kinds.items() if kind == "depthwise"}
    assert depthwise == {"32x8x8 > conv32k3p1g32(0) relu6(1)"}
