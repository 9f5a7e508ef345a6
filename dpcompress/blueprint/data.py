"""The Blueprint: a network as plain, frozen data. JSON in, JSON out, no torch."""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, Literal, NamedTuple, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from dpcompress.errors import BadInput
from dpcompress.files import digest

Pair = tuple[int, int]  # (height, width) or (y, x)
Sides = tuple[Pair, Pair]  # amounts at the ends: ((top, bottom), (left, right))

T = TypeVar("T", bound=BaseModel)
OpKind = Literal[
    "input", "conv", "norm", "act", "add", "avgpool", "pad", "identity", "opaque"
]
Role = Literal["", "mixes", "gate", "keeps"]
LINEAR_KINDS = frozenset({"conv", "norm", "avgpool", "pad", "identity", "add"})


class Frozen(BaseModel):
    """The base of plain data classes: immutable, closed to unknown fields, JSON in and
    out."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def to_json(self) -> str:
        """Write the fields as JSON text."""
        return self.model_dump_json(indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes, source: object = "the text") -> Self:
        """Read what `to_json` wrote; errors name `source`.

        Raises:
            BadInput: it is not of this class; names the first faulty field.
        """
        return parse(cls, text, source)


class Span(NamedTuple):
    """The layers start+1 .. stop of 1..L; the papers write (i, j]."""

    start: int
    stop: int

    @property
    def length(self) -> int:
        """The number of layers."""
        return self.stop - self.start


class ConvSpec(Frozen):
    """The shape of a 2-d convolution. Pairs are (height, width)."""

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
        """The number of kernel weights, bias not counted."""
        return (
            self.out_channels
            * (self.in_channels // self.groups)
            * self.kernel[0]
            * self.kernel[1]
        )

    @property
    def extent(self) -> Pair:
        """The pixels that the dilated kernel spans."""
        return (
            (self.kernel[0] - 1) * self.dilation[0] + 1,
            (self.kernel[1] - 1) * self.dilation[1] + 1,
        )


class Op(Frozen):
    """An operation of the network; `inputs` are indices of earlier ops.

    shape: of the output without the batch: (C, H, W) or other.
    conv: set for the kinds conv and avgpool (the equivalent depthwise conv).
    padding: set for the kind pad.
    act: set for the kind act: a name such as "relu6".
    why: what an opaque op does that stops merging.
    role: how an opaque op treats channels: "mixes" (a conv or a fully connected layer on
        a pooled vector), "gate" (multiplies two tensors) or "keeps" (each stays apart);
        "" if unknown.
    mixes: the shape of an op that mixes, as a convolution.
    """

    name: str
    kind: OpKind
    inputs: tuple[int, ...] = ()
    shape: tuple[int, ...]
    conv: ConvSpec | None = None
    padding: Sides | None = None
    act: str | None = None
    why: str = ""
    role: Role = ""
    mixes: ConvSpec | None = None


class Layer(Frozen):
    """A numbered convolution and the ops that follow it up to the next one.

    tail: indices of ops (norm, activation, residual add, pooling) in execution order.
    act: the activation among them, None if there is none.
    """

    conv: int
    tail: tuple[int, ...] = ()
    act: int | None = None

    @property
    def out(self) -> int:
        """The op that gives the tensor at this layer's position."""
        return self.tail[-1] if self.tail else self.conv


class Chain(Frozen):
    """The layers start+1 .. stop, each fed by the one before, the first by op `entry`."""

    entry: int
    start: int
    stop: int


class Skip(NamedTuple):
    """A tensor that passes layers by: from position `source` to the add at `target`.

    source: None where the tensor comes from outside the chain.
    convs: names of the convolutions that it passes through (a projection shortcut).
    """

    source: int | None
    target: int
    convs: tuple[str, ...]


class Limits(Frozen):
    """The limits that make a legal span a candidate (docs/method.md §2)."""

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
        """The number of layers, L."""
        return len(self.layers)

    @cached_property
    def digest(self) -> str:
        """The digest of the structure.

        Left out are the weights, `why`, `role` and `mixes` of ops, and the limits: a plan
        holds for any limits. Tables record the digest and the limits.
        """
        told = dict.fromkeys(("why", "role", "mixes"), True)
        structure = self.model_dump(
            mode="json", exclude={"limits": True, "ops": {"__all__": told}}
        )
        return digest(structure)

    @cached_property
    def consumers(self) -> tuple[tuple[int, ...], ...]:
        """The ops that read each op."""
        users: list[list[int]] = [[] for _ in self.ops]
        for index, op in enumerate(self.ops):
            for source in dict.fromkeys(op.inputs):
                users[source].append(index)
        return tuple(map(tuple, users))

    @cached_property
    def position_of(self) -> dict[int, int]:
        """The number of the layer that each op belongs to, by op index."""
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
        """Say whether the original network has an activation at `position` (1..L)."""
        return self.layers[position - 1].act is not None


def parse(kind: type[T], text: str | bytes, source: object) -> T:
    """Read JSON text as a `kind`.

    Raises:
        BadInput: it is not one; names the first faulty field.
    """
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
