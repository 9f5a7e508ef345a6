"""Finds out which numbers a built engine computes in, from its inspector's report.

The inspector's JSON differs from version to version: the type of a
tensor is in `Format/Datatype` until 10 ("Row major linear FP16 format", or just "Half"),
in `DataType` from 11 on. Layers with weights also tell the weights' type.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any, Dict, Iterator, List, Mapping, Optional

from dpcompress.errors import EngineUnavailable

_TYPES = (
    ("bf16", re.compile(r"bf16|bfloat16", re.I)),
    ("fp16", re.compile(r"fp16|half|float16", re.I)),
    ("int8", re.compile(r"u?int8", re.I)),
    ("fp32", re.compile(r"fp32|float", re.I)),
)
_MOVES = ("reformat", "constant", "shuffle", "noop", "identity", "cast")
_TF32 = re.compile(r"tf32", re.I)


def precisions(layers: List[Any]) -> Dict[str, int]:
    """Count layers by the numbers they compute in; "unknown" for those that do not say.

    Only layers with weights are counted, or, if there are none, all that compute.
    """
    told = [layer if isinstance(layer, Mapping) else {} for layer in layers]
    weighted = [layer for layer in told if _weights(layer)]
    computing = weighted or [layer for layer in told if not _only_moves(layer)]
    return dict(Counter(_precision(layer) or "unknown" for layer in computing))


def check_precision(information: str, wanted: str) -> Dict[str, int]:
    """Check that an engine computes in the precision that it was built for.

    Args:
        information: the inspector's detailed JSON report about the whole engine.
        wanted: fp32, tf32 or fp16.

    Returns:
        `precisions` of the engine's layers.

    Raises:
        EngineUnavailable: fewer than half the layers of an fp16 engine compute in fp16,
            or any layer of another engine does, or one of an fp32 engine in tf32.
    """
    layers = _layers(information)
    found = precisions(layers)
    count = sum(found.values())
    if wanted == "fp16" and 2 * found.get("fp16", 0) < count:
        raise _mismatch(wanted, found)
    if wanted != "fp16" and found.get("fp16", 0):
        raise _mismatch(wanted, found)
    if wanted == "fp32":
        tactics = [str(t.get("TacticName", "")) for t in layers if isinstance(t, Mapping)]
        count = sum(1 for tactic in tactics if _TF32.search(tactic))
        if count:
            raise _mismatch(wanted, {"tf32": count})
    return found


def _mismatch(wanted: str, found: Mapping[str, int]) -> EngineUnavailable:
    told = ", ".join(f"{n} layers in {name}" for name, n in sorted(found.items()))
    return EngineUnavailable(
        f"TensorRT was asked for {wanted} but built {told or 'nothing that it names'}.",
        "Choose another --precision, or report the TensorRT version and the GPU.",
    )


def _layers(information: str) -> List[Any]:
    try:
        return list(json.loads(information)["Layers"])
    except (ValueError, KeyError, TypeError) as error:
        raise EngineUnavailable(
            f"TensorRT's inspector gives no layers: {error!r}.",
            "Report the TensorRT version.",
        ) from error


def _weights(layer: Mapping[str, Any]) -> bool:
    weights = layer.get("Weights")
    return isinstance(weights, Mapping) and bool(weights.get("Count"))


def _only_moves(layer: Mapping[str, Any]) -> bool:
    return str(layer.get("LayerType", "")).lower() in _MOVES


def _precision(layer: Mapping[str, Any]) -> Optional[str]:
    for text in _texts(layer):
        for name, pattern in _TYPES:
            if pattern.search(text):
                return name
    return None


def _texts(layer: Mapping[str, Any]) -> Iterator[str]:
    """The texts that may name a layer's numbers, the most reliable first."""
    if _weights(layer):
        yield str(layer["Weights"].get("Type", ""))
    for tensor in [*layer.get("Outputs", ()), *layer.get("Inputs", ())]:
        if isinstance(tensor, Mapping):
            for key in ("DataType", "Datatype", "Format/Datatype", "Format"):
                yield str(tensor.get(key, ""))
