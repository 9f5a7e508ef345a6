"""From spans to unique ops: what runs, in shapes alone, when a span is merged.

Spans of equal shape share one op, so that each is measured once.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property

from dpcompress.blueprint import Blueprint, ConvSpec, MergedSpan, Op, Sides, branch_ops
from dpcompress.blueprint.data import OpKind

Shape = tuple[int, int, int]


@dataclass(frozen=True)
class Source:
    """A tensor that an op reads: (C, H, W); `raw` where it is the network's own input,
    which reaches the engine in plain layout instead of the engine's own."""

    shape: Shape
    raw: bool = False

    @property
    def label(self) -> str:
        return ("raw" if self.raw else "") + "x".join(map(str, self.shape))


@dataclass(frozen=True)
class Step:
    """One node of an op. `inputs` count the sources first, then the earlier steps;
    `shape` is its output (C, H, W)."""

    kind: OpKind
    inputs: tuple[int, ...]
    shape: Shape
    conv: ConvSpec | None = None
    padding: Sides | None = None
    act: str | None = None

    @property
    def label(self) -> str:
        """The step in words, with everything that its time depends on."""
        if self.kind == "conv" and self.conv is not None:
            name = _conv_label(self.conv)
        elif self.kind == "avgpool" and self.conv is not None:
            name = f"avgpool{_window(self.conv)}"
        elif self.kind == "pad" and self.padding is not None:
            name = f"pad{_four(self.padding)}"
        else:
            name = self.act or self.kind
        return f"{name}({','.join(map(str, self.inputs))})"


@dataclass(frozen=True)
class Program:
    """What an engine runs for one span: the merged conv, what follows it in its layer,
    and the side branches that are charged to it. The last step is the output."""

    sources: tuple[Source, ...]
    steps: tuple[Step, ...]

    @cached_property
    def signature(self) -> str:
        """Canonical text: equal for ops that no engine can tell apart."""
        sources = ",".join(source.label for source in self.sources)
        return f"{sources} > {' '.join(step.label for step in self.steps)}"

    @property
    def shape(self) -> Shape:
        """Output (C, H, W)."""
        return self.steps[-1].shape


def span_op(blueprint: Blueprint, merged: MergedSpan, act_stop: bool) -> Program:
    """What runs for a legal span, with or without an activation at its end.

    Where the original network has an activation there, `act_stop` false leaves it out;
    where it has none, `act_stop` true adds one of the network's own kind after
    everything else. Norms that follow a conv are folded into it.
    """
    ops, layer = blueprint.ops, blueprint.layers[merged.span.stop - 1]
    running = {merged.exit, *branch_ops(blueprint, merged), *merged.tail}
    stands_for: dict[int, int] = {}
    for index in sorted(running - {merged.exit}):
        removed = index == layer.act and not act_stop
        if removed or ops[index].kind == "identity" or _is_folded(blueprint, index):
            read = ops[index].inputs[0]
            stands_for[index] = stands_for.get(read, read)
    place: dict[int, int] = {}
    reads: dict[int, tuple[int, ...]] = {}
    for index in sorted(running - stands_for.keys()):
        inputs = (merged.entry,) if index == merged.exit else ops[index].inputs
        reads[index] = tuple(stands_for.get(i, i) for i in inputs)
    outside = (i for inputs in reads.values() for i in inputs if i not in reads)
    for index in dict.fromkeys((merged.entry, *outside)):
        place[index] = len(place)
    sources = tuple(
        Source(shape=_shape(ops[i]), raw=ops[i].kind == "input") for i in place
    )
    steps = []
    for index, inputs in reads.items():
        places = tuple(place[i] for i in inputs)
        place[index] = len(place)
        if index == merged.exit:
            step = Step("conv", places, _shape(ops[index]), conv=merged.conv)
        else:
            step = _step(ops[index], places)
        steps.append(step)
    act = own_activation(blueprint)
    if act_stop and layer.act is None and act is not None:
        steps.append(Step("act", (len(place) - 1,), steps[-1].shape, act=act))
    return Program(sources, tuple(steps))


def own_activation(blueprint: Blueprint) -> str | None:
    """The network's own kind of activation: the most common one, None without any."""
    kinds = Counter(op.act for op in blueprint.ops if op.kind == "act" and op.act)
    return kinds.most_common(1)[0][0] if kinds else None


def _is_folded(blueprint: Blueprint, index: int) -> bool:
    op = blueprint.ops[index]
    if op.kind != "norm":
        return False
    read = op.inputs[0]
    return blueprint.ops[read].kind == "conv" and len(blueprint.consumers[read]) == 1


def _shape(op: Op) -> Shape:
    channels, height, width = op.shape
    return channels, height, width


def _step(op: Op, inputs: tuple[int, ...]) -> Step:
    assert op.kind not in ("input", "identity", "opaque"), op
    # A branch conv takes a bias from the norm that is folded into it.
    conv = op.conv and op.conv.model_copy(update={"bias": True})
    return Step(op.kind, inputs, _shape(op), conv, op.padding, op.act)


def _four(sides: Sides) -> str:
    """Both ends of both dimensions, briefly: one number if all are equal."""
    (top, bottom), (left, right) = sides
    every = (top, bottom, left, right)
    return str(top) if len(set(every)) == 1 else "t{}b{}l{}r{}".format(*every)


def _two(pair: tuple[int, int]) -> str:
    return str(pair[0]) if pair[0] == pair[1] else f"{pair[0]}x{pair[1]}"


def _window(conv: ConvSpec) -> str:
    text = f"k{_two(conv.kernel)}"
    if conv.stride != (1, 1):
        text += f"s{_two(conv.stride)}"
    if conv.padding != ((0, 0), (0, 0)):
        text += f"p{_four(conv.padding)}"
    if conv.dilation != (1, 1):
        text += f"d{_two(conv.dilation)}"
    return text


def _conv_label(conv: ConvSpec) -> str:
    text = f"conv{conv.out_channels}{_window(conv)}"
    return text if conv.groups == 1 else f"{text}g{conv.groups}"


_CLAMPS = frozenset({"relu", "relu6", "hardtanh", "leaky_relu"})


def activation_is_free(op: Program) -> bool:
    """Whether the op ends with a clamp of a conv's output: engines apply it while they
    write that output, at no cost that could be told from noise. One measurement stands
    for the op with and without it."""
    last = op.steps[-1]
    if last.kind != "act" or last.act not in _CLAMPS:
        return False
    step = last.inputs[0] - len(op.sources)
    return step >= 0 and op.steps[step].kind == "conv"
