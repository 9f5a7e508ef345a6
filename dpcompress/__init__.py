"""Makes trained convolutional networks faster by making them shallower.

Each public function stands in the file of its name, and is loaded, with torch or an
engine, on first use; so ``import dpcompress`` stays light.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from dpcompress.version import __version__ as __version__

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

if TYPE_CHECKING:
    from dpcompress.exporters.export import export
    from dpcompress.graph.fit_merged import fit_merged
    from dpcompress.graph.linearize import linearize
    from dpcompress.graph.merge import merge
    from dpcompress.graph.trace import trace
    from dpcompress.importance.score import score
    from dpcompress.latency.bench import bench
    from dpcompress.latency.profile import profile
    from dpcompress.models.load_model import load_model
    from dpcompress.solver.solve import solve
    from dpcompress.training.finetune import finetune

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
    file = import_module(f"{__name__}.{_ROOM_OF[name]}.{name}")
    return getattr(file, name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
