"""What an engine runs for a span, as plain data.

Spans of equal shape have equal programs, so that each program is measured once.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from dpcompress.blueprint import ConvSpec, Sides
from dpcompress.blueprint.data import OpKind

Shape = tuple[int, int, int]


@dataclass(frozen=True)
class Source:
    """A tensor that a program reads.

    shape: (C, H, W).
    raw: whether it is the network's own input, which reaches the engine in plain memory
        layout instead of the engine's own.
    """

    shape: Shape
    raw: bool = False

    @property
    def label(self) -> str:
        return ("raw" if self.raw else "") + "x".join(map(str, self.shape))


@dataclass(frozen=True)
class Step:
    """A node of a program.

    inputs: numbers of tensors, which count the program's sources first and then the
        outputs of its earlier steps.
    shape: the step's output, (C, H, W).
    """

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
            name = f"avgpool{_kernel_label(self.conv)}"
        elif self.kind == "pad" and self.padding is not None:
            name = f"pad{_four(self.padding)}"
        else:
            name = self.act or self.kind
        return f"{name}({','.join(map(str, self.inputs))})"


@dataclass(frozen=True)
class Program:
    """The steps that an engine runs one after the other; the last one is the output."""

    sources: tuple[Source, ...]
    steps: tuple[Step, ...]

    @cached_property
    def signature(self) -> str:
        """The canonical text, equal for programs that no engine can tell apart."""
        sources = ",".join(source.label for source in self.sources)
        return f"{sources} > {' '.join(step.label for step in self.steps)}"

    @property
    def shape(self) -> Shape:
        """The output's shape, (C, H, W)."""
        return self.steps[-1].shape


def _conv_label(conv: ConvSpec) -> str:
    text = f"conv{conv.out_channels}{_kernel_label(conv)}"
    return text if conv.groups == 1 else f"{text}g{conv.groups}"


def _kernel_label(conv: ConvSpec) -> str:
    text = f"k{_two(conv.kernel)}"
    if conv.stride != (1, 1):
        text += f"s{_two(conv.stride)}"
    if conv.padding != ((0, 0), (0, 0)):
        text += f"p{_four(conv.padding)}"
    if conv.dilation != (1, 1):
        text += f"d{_two(conv.dilation)}"
    return text


def _two(pair: tuple[int, int]) -> str:
    """Format height and width, as one number if they are equal."""
    return str(pair[0]) if pair[0] == pair[1] else f"{pair[0]}x{pair[1]}"


def _four(sides: Sides) -> str:
    """The four sides in one number if they are equal."""
    (top, bottom), (left, right) = sides
    if top == bottom == left == right:
        return str(top)
    return f"t{top}b{bottom}l{left}r{right}"
