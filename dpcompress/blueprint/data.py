"""The Blueprint: a network as plain, frozen data. JSON in, JSON out, no torch."""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, Any, Literal, NamedTuple, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from dpcompress.errors import BadInput
from dpcompress.files import digest

Pair = tuple[int, int]
Sides = tuple[Pair, Pair]
"""Amounts at the two ends of each spatial dimension: ((top, bottom), (left, right))."""

T = TypeVar("T", bound=BaseModel)
OpKind = Literal[
    "input", "conv", "norm", "act", "add", "avgpool", "pad", "identity", "opaque"
]
LINEAR_KINDS = frozenset({"conv", "norm", "avgpool", "pad", "identity", "add"})


class Frozen(BaseModel):
    """Base of the plain data classes: immutable, and closed to unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Span(NamedTuple):
    """Layers start+1 .. stop of the numbering 1..L, as in the papers' (i, j]."""

    start: int
    stop: int

    @property
    def length(self) -> int:
        return self.stop - self.start


class ConvSpec(Frozen):
    """Shape of a 2-d convolution. Pairs are (height, width)."""

    in_channels: Annotated[int, Field(ge=1)]
    out_channels: Annotated[int, Field(ge=1)]
    kernel: Pair
    stride: Pair = (1, 1)
    padding: Sides = ((0, 0), (0, 0))
    dilation: Pair = (1, 1)
    groups: Annotated[int, Field(ge=1)] = 1
    bias: bool = True

    @property
    def weights(self) -> int:
        """Number of kernel weights, bias not counted."""
        return (
            self.out_channels
            * (self.in_channels // self.groups)
            * self.kernel[0]
            * self.kernel[1]
        )

    @property
    def extent(self) -> Pair:
        """Pixels that the dilated kernel spans."""
        return (
            (self.kernel[0] - 1) * self.dilation[0] + 1,
            (self.kernel[1] - 1) * self.dilation[1] + 1,
        )


class Op(Frozen):
    """One operation of the network; `inputs` are indices of earlier ops.

    `conv` is set for kinds conv and avgpool (the equivalent depthwise conv), `padding`
    for pad, `act` (a name such as "relu6") for act; `why` says what an opaque op does
    that stops merging. `shape` is the output without the batch: (C, H, W) or other.
    """

    name: str
    kind: OpKind
    inputs: tuple[int, ...] = ()
    shape: tuple[int, ...]
    conv: ConvSpec | None = None
    padding: Sides | None = None
    act: str | None = None
    why: str = ""


class Layer(Frozen):
    """A numbered convolution and the ops that follow it up to the next one.

    `tail` are op indices: norm, activation, residual add, pooling, in execution order;
    the last of them (or the conv) is the tensor at this layer's position.
    """

    conv: int
    tail: tuple[int, ...] = ()
    act: int | None = None

    @property
    def out(self) -> int:
        return self.tail[-1] if self.tail else self.conv


class Chain(Frozen):
    """Layers start+1 .. stop, each fed by the one before, the first by op `entry`."""

    entry: int
    start: int
    stop: int


class Skip(NamedTuple):
    """A tensor that passes layers by: from position `source` to the add at `target`.

    `source` is None where it comes from outside the chain. `convs` are the names of the
    convolutions on the way (a projection shortcut).
    """

    source: int | None
    target: int
    convs: tuple[str, ...]


class Limits(Frozen):
    """Which legal spans are worth measuring: the candidates (docs/method.md §2)."""

    max_growth: Annotated[
        float,
        Field(
            ge=1,
            description="A legal span is a candidate if its merged convolution has at "
            "most this many times its parts' multiply-adds.",
        ),
    ] = 8.0
    max_weight_mb: Annotated[
        float,
        Field(
            ge=0,
            description="... and at most this many megabytes (10**6 bytes) of fp32 "
            "weights.",
        ),
    ] = 64.0


class Blueprint(Frozen):
    """A traced network: its ops in topological order and the chains of layers in it.

    Layers are numbered 1..L over all chains; position l is the place after layer l.
    A blueprint holds for the input size that it was traced with.
    """

    version: Literal[1] = 1
    input: tuple[int, int, int]
    output: int
    ops: tuple[Op, ...]
    layers: tuple[Layer, ...]
    chains: tuple[Chain, ...]
    limits: Limits = Limits()

    @model_validator(mode="after")
    def _check(self) -> Self:
        for index, op in enumerate(self.ops):
            if any(not 0 <= i < index for i in op.inputs):
                raise ValueError(f"op {op.name} has an input that is not an earlier op")
        edges = [0] + [c.stop for c in self.chains]
        if [c.start for c in self.chains] != edges[:-1] or edges[-1] != self.depth:
            raise ValueError("the chains do not cover the layers 1..L in order")
        return self

    @property
    def depth(self) -> int:
        """L, the number of layers."""
        return len(self.layers)

    @cached_property
    def digest(self) -> str:
        """Identifies the structure: not the weights, not how a barrier is worded, and not
        the candidate limits, so that a plan holds whatever limits it was searched with.
        Tables record both."""
        structure = self.model_dump(
            mode="json", exclude={"limits": True, "ops": {"__all__": {"why": True}}}
        )
        return digest(structure)

    @cached_property
    def consumers(self) -> tuple[tuple[int, ...], ...]:
        """For each op the ops that read it."""
        users: list[list[int]] = [[] for _ in self.ops]
        for index, op in enumerate(self.ops):
            for source in dict.fromkeys(op.inputs):
                users[source].append(index)
        return tuple(map(tuple, users))

    @cached_property
    def examined(self) -> dict[Span, Any]:
        """What `examine` found so far."""
        return {}

    @cached_property
    def position_of(self) -> dict[int, int]:
        """Op index → number of the layer whose conv or tail it is."""
        return {
            op: number
            for number, layer in enumerate(self.layers, 1)
            for op in (layer.conv, *layer.tail)
        }

    def chain_of(self, layer: int) -> Chain:
        """The chain that holds layer `layer` (1..L)."""
        return next(c for c in self.chains if c.start < layer <= c.stop)

    def entry(self, span: Span) -> int:
        """The op whose output feeds layer span.start + 1."""
        chain = self.chain_of(span.start + 1)
        return (
            chain.entry if span.start == chain.start else self.layers[span.start - 1].out
        )

    def has_activation(self, position: int) -> bool:
        """Whether the original network has an activation at `position` (1..L)."""
        return self.layers[position - 1].act is not None

    def to_json(self) -> str:
        return self.model_dump_json(indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes, source: object = "blueprint") -> Self:
        """Read what `to_json` wrote.

        Raises:
            BadInput: not a blueprint; names the first faulty field.
        """
        return parse(cls, text, source)


def parse(kind: type[T], text: str | bytes, source: object) -> T:
    """`text` as a `kind`, or a BadInput that names the first faulty field."""
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        raise BadInput(
            f"{source} is not a valid {kind.__name__.lower()} file: "
            f"{place}: {first['msg']}.",
            "Write it again with the command that made it.",
        ) from error
