"""Makes trained convolutional networks faster by making them shallower.

Each public function loads its room, and with it torch or an engine, on first use; so
``import dpcompress`` stays light.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_ROOM_OF = {
    "load_model": "models",
    "trace": "graph",
    "profile": "latency",
    "score": "importance",
    "solve": "solver",
    "linearize": "graph",
    "fit_merged": "graph",
    "finetune": "training",
    "merge": "graph",
    "export": "exporters",
    "bench": "latency",
}
_NAME_THERE = {"finetune": "fit", "export": "export_onnx", "bench": "bench_networks"}

if TYPE_CHECKING:
    from dpcompress.exporters import export_onnx as export
    from dpcompress.graph.fit import fit_merged
    from dpcompress.graph.linearize import linearize, trace
    from dpcompress.graph.merge import merge
    from dpcompress.importance import score
    from dpcompress.latency import bench_networks as bench
    from dpcompress.latency import profile
    from dpcompress.models import load_model
    from dpcompress.solver import solve
    from dpcompress.training import fit as finetune

__all__ = [
    "bench",
    "export",
    "finetune",
    "fit_merged",
    "linearize",
    "load_model",
    "merge",
    "profile",
    "score",
    "solve",
    "trace",
]


def __getattr__(name: str) -> Any:
    if name not in _ROOM_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    room = import_module(f"{__name__}.{_ROOM_OF[name]}")
    return getattr(room, _NAME_THERE.get(name, name))


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
