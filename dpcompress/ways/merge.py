"""The way "merge": a span becomes one convolution (Kim et al. 2023)."""

from __future__ import annotations

from collections.abc import Iterable

from dpcompress.blueprint import Blueprint, MergedSpan, Op, branch_ops, own_activation
from dpcompress.ways.program import Program, Shape, Source, Step


def program(blueprint: Blueprint, merged: MergedSpan, act_stop: bool) -> Program:
    """Make the program of a merged span: the convolution, what follows it in its layer,
    and the side branches that are charged to it. Norms after a conv are folded into it.

    Args:
        act_stop: whether an activation closes the span. False leaves out the one that
            the original network has there; true adds `own_activation` after everything
            else if there is none.
    """
    ops, layer = blueprint.ops, blueprint.layers[merged.span.stop - 1]
    removed = {layer.act} if layer.act is not None and not act_stop else set()
    reads = _reads(blueprint, merged, removed)
    outside = [i for inputs in reads.values() for i in inputs if i not in reads]
    sources = list(dict.fromkeys((merged.entry, *outside)))
    number = {index: n for n, index in enumerate((*sources, *reads))}
    steps = []
    for index, inputs in reads.items():
        numbers = tuple(number[i] for i in inputs)
        if index == merged.exit:
            step = Step("conv", numbers, _shape(ops[index]), conv=merged.conv)
        else:
            step = _step(ops[index], numbers)
        steps.append(step)
    if act_stop and layer.act is None:
        act = own_activation(blueprint)
        steps.append(Step("act", (len(number) - 1,), steps[-1].shape, act=act))
    return Program(
        tuple(Source(_shape(ops[i]), raw=ops[i].kind == "input") for i in sources),
        tuple(steps),
    )


def _reads(
    blueprint: Blueprint, merged: MergedSpan, removed: Iterable[int]
) -> dict[int, tuple[int, ...]]:
    """Map each op that runs, in order, to the ops that it reads, past those that do not
    run: `removed` ones, identities and norms that are folded into a conv."""
    ops = blueprint.ops
    running = {*branch_ops(blueprint, merged), *merged.tail} - {merged.exit}
    stands_for: dict[int, int] = {}
    for index in sorted(running):
        is_identity = index in removed or ops[index].kind == "identity"
        if is_identity or _is_folded(blueprint, index):
            read = ops[index].inputs[0]
            stands_for[index] = stands_for.get(read, read)
    reads = {}
    for index in sorted({*running, merged.exit} - stands_for.keys()):
        inputs = (merged.entry,) if index == merged.exit else ops[index].inputs
        reads[index] = tuple(stands_for.get(i, i) for i in inputs)
    return reads


def _is_folded(blueprint: Blueprint, index: int) -> bool:
    op = blueprint.ops[index]
    if op.kind != "norm":
        return False
    read = op.inputs[0]
    return blueprint.ops[read].kind == "conv" and len(blueprint.consumers[read]) == 1


def _step(op: Op, inputs: tuple[int, ...]) -> Step:
    assert op.kind not in ("input", "identity", "opaque"), op
    # A branch conv takes a bias from the norm that is folded into it.
    conv = op.conv and op.conv.model_copy(update={"bias": True})
    return Step(op.kind, inputs, _shape(op), conv, op.padding, op.act)


def _shape(op: Op) -> Shape:
    channels, height, width = op.shape
    return channels, height, width
