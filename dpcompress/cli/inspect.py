"""``dpcompress inspect``: the layers, skips, barriers and spans of a network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from dpcompress.cli.files import Json
from dpcompress.cli.output import emit, print_table

if TYPE_CHECKING:
    from dpcompress.blueprint import Blueprint, ConvSpec, Illegal, MergedSpan
    from dpcompress.settings import LimitOptions, ModelOptions, Options


def inspect(
    model: Annotated[ModelOptions, Options("model", "model_args", "input")],
    limits: LimitOptions,
    spans: Annotated[
        bool,
        typer.Option(
            "--spans",
            help="Also list every span (what it becomes, or why not), and the spans that "
            "have channels of their own, which nothing else reads or writes.",
        ),
    ] = False,
    json: Json = False,
) -> None:
    """Show the layers, skips and barriers of a network, and which spans can merge.

    A span (start, stop) is the layers start+1 to stop. It is legal when it can become
    one convolution exactly, and a candidate when that convolution is also small enough
    to be worth measuring.

    \b
    Example:
      dpcompress inspect torchvision:mobilenet_v2 --spans
    """
    from dpcompress.blueprint import examine, spans_of
    from dpcompress.graph import left_alone, trace
    from dpcompress.models import default_input, load_model

    network = load_model(model.model, model_args=model.model_args)
    size = model.input or default_input(model.model)
    blueprint = trace(network, size, limits)
    found = [examine(blueprint, span) for span in spans_of(blueprint)]
    listed = [_span(result) for result in found]
    facts = {
        "model": model.model,
        "input": blueprint.input,
        "blueprint": blueprint.digest,
        "limits": blueprint.limits.model_dump(),
        "params": sum(p.numel() for p in network.parameters()),
        "conv_macs": _conv_macs(blueprint),
        "layers": _layers(blueprint),
        "skips": _skips(blueprint),
        "barriers": _barriers(blueprint),
        "left_alone": [
            {"name": name, "why": why}
            for name, why in left_alone(network, blueprint.ops).items()
        ],
        "spans_legal": sum(span["status"] != "illegal" for span in listed),
        "spans_candidate": sum(span["status"] == "candidate" for span in listed),
    }
    if json:
        more = {"spans": listed, "private_channels": _private_channels(blueprint)}
        emit(facts | (more if spans else {}))
        return
    _print(facts)
    if spans:
        columns = ("start", "stop", "status", "kernel", "MACs", "params", "why not")
        print_table(columns, map(_span_row, listed), title="Spans")
        rows = [list(row.values()) for row in _private_channels(blueprint)]
        print_table(
            ("start", "stop", "channels", "in groups of"),
            rows,
            title="Channels of their own",
        )


def _layers(blueprint: Blueprint) -> list[dict[str, Any]]:
    rows = []
    for number, layer in enumerate(blueprint.layers, 1):
        op = blueprint.ops[layer.conv]
        assert op.conv is not None
        act = None if layer.act is None else blueprint.ops[layer.act].act
        rows.append(
            {
                "layer": number,
                "name": op.name,
                "conv": _shape_of(op.conv),
                "activation": act,
                "output": blueprint.ops[layer.out].shape,
                "params": op.conv.weights + op.conv.out_channels * op.conv.bias,
                "macs": op.conv.weights * op.shape[1] * op.shape[2],
            }
        )
    return rows


def _skips(blueprint: Blueprint) -> list[dict[str, Any]]:
    from dpcompress.blueprint import skips

    return [skip._asdict() for skip in skips(blueprint)]


def _barriers(blueprint: Blueprint) -> list[dict[str, Any]]:
    """The inner positions that no legal span passes, with the reason."""
    from dpcompress.blueprint import Illegal, Span, barriers, examine

    rows = []
    for position in barriers(blueprint)[1:-1]:
        across = examine(blueprint, Span(position - 1, position + 1))
        why = across.why if isinstance(across, Illegal) else ""
        rows.append({"position": position, "why": why})
    return rows


def _private_channels(blueprint: Blueprint) -> list[dict[str, int]]:
    from dpcompress.blueprint import homes

    return [
        {**span._asdict(), "channels": space.channels, "unit": space.unit}
        for span, own in homes(blueprint).items()
        for space in own
    ]


def _span(found: MergedSpan | Illegal) -> dict[str, Any]:
    from dpcompress.blueprint import Illegal

    start, stop = found.span
    if isinstance(found, Illegal):
        return {"start": start, "stop": stop, "status": "illegal", "why": found.why}
    return {
        "start": start,
        "stop": stop,
        "status": "candidate" if found.is_candidate else "too large",
        "why": found.too_large,
        "conv": _shape_of(found.conv),
        "kernel": found.conv.kernel,
        "macs": found.macs,
        "params": found.params,
        "macs_before": found.parts_macs,
        "params_before": found.parts_params,
    }


def _conv_macs(blueprint: Blueprint) -> int:
    return sum(
        op.conv.weights * op.shape[1] * op.shape[2]
        for op in blueprint.ops
        if op.kind == "conv" and op.conv is not None
    )


def _print(facts: dict[str, Any]) -> None:
    size = "x".join(map(str, facts["input"]))
    depth = len(facts["layers"])
    print(
        f"{facts['model']} at {size}: {depth} layers, "
        f"{_short(facts['params'])} parameters, {_short(facts['conv_macs'])} conv MACs"
    )
    joins = {skip["target"]: skip for skip in facts["skips"]}
    stops = {barrier["position"]: barrier["why"] for barrier in facts["barriers"]}
    rows = []
    for layer in facts["layers"]:
        number = layer["layer"]
        output = "x".join(map(str, layer["output"]))
        row = [number, layer["name"], layer["conv"], layer["activation"] or "-", output]
        skip = joins.get(number)
        row.append("" if skip is None else _skip_text(skip))
        row.append(stops.get(number, ""))
        rows.append(row)
    columns = ["layer", "name", "convolution", "activation", "output", "adds", "barrier"]
    if not stops:
        columns, rows = columns[:-1], [row[:-1] for row in rows]
    print_table(columns, rows)
    reasons: dict[str, list[str]] = {}
    for conv in facts["left_alone"]:
        reasons.setdefault(conv["why"], []).append(conv["name"])
    for why, names in reasons.items():
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        print(f"No layers: {', '.join(names[:3])}{more} ({why}).")
    print(
        f"{facts['spans_legal']} legal spans, of which {facts['spans_candidate']} are "
        "candidates, single layers included."
    )


def _skip_text(skip: dict[str, Any]) -> str:
    source = "outside" if skip["source"] is None else f"position {skip['source']}"
    return source + (f" through {', '.join(skip['convs'])}" if skip["convs"] else "")


def _span_row(span: dict[str, Any]) -> list[object]:
    row: list[object] = [span["start"], span["stop"], span["status"]]
    if span["status"] == "illegal":
        return [*row, "", "", "", span["why"]]
    for key in ("macs", "params"):
        span[key] = f"{_short(span[f'{key}_before'])} to {_short(span[key])}"
    return [*row, span["conv"], span["macs"], span["params"], span["why"]]


def _shape_of(conv: ConvSpec) -> str:
    """Format a convolution, as in '3x3 32>64 stride 2 groups 32'."""
    parts = [
        f"{conv.kernel[0]}x{conv.kernel[1]}",
        f"{conv.in_channels}>{conv.out_channels}",
    ]
    if conv.stride != (1, 1):
        parts.append(f"stride {_sizes(conv.stride)}")
    if conv.dilation != (1, 1):
        parts.append(f"dilation {_sizes(conv.dilation)}")
    if conv.groups > 1:
        depthwise = conv.groups == conv.in_channels == conv.out_channels
        parts.append("depthwise" if depthwise else f"groups {conv.groups}")
    return " ".join(parts)


def _sizes(pair: tuple[int, int]) -> str:
    height, width = pair
    return f"{height}" if height == width else f"{height}x{width}"


def _short(count: int) -> str:
    for unit, name in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if count >= unit:
            return f"{count / unit:.3g} {name}"
    return str(count)
