"""What a user may choose about TensorRT besides the precision."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Dict, Mapping, Optional, Tuple

from dpcompress.errors import EngineUnavailable, UsageError

# Tactic sources that need neither cuBLAS nor cuDNN.
INTERNAL = ("EDGE_MASK_CONVOLUTIONS", "JIT_CONVOLUTIONS")


@dataclass(frozen=True)
class Options:
    """The options of `--engine tensorrt:workspace_mb=512,tactics=internal`.

    workspace_mb: scratch memory that a layer may use while it runs.
    optimization_level: 0 (fast build) to 5, from TensorRT 8.6 on; None takes its default.
    tactics: `default`, `internal` (nothing from cuBLAS and cuDNN: for a host without
        them) or names of trt.TacticSource joined by `+`.
    avg_timing: runs that the builder averages when it times a tactic.
    timing_cache: whether tactics timed before are taken from, and kept in, the file
        that DPCOMPRESS_TIMING_CACHE names, or one beside the store.
    cuda_graph: inferences captured into one CUDA graph, so that what the host needs to
        start a kernel does not hide the kernel; 0: none, each layer is launched.
    """

    workspace_mb: int = 1024
    optimization_level: Optional[int] = None
    tactics: str = "default"
    avg_timing: int = 8
    timing_cache: bool = True
    cuda_graph: int = 16

    @classmethod
    def parse(cls, given: Mapping[str, str]) -> Options:
        """Read options as they were written.

        Raises:
            UsageError: an option cannot have this value.
        """
        known: Dict[str, Any] = {}
        for name, text in given.items():
            if name == "tactics":
                known[name] = text
            elif name == "timing_cache":
                known[name] = _one_of(name, text, {"on": True, "off": False})
            else:
                low, high = _LIMITS[name]
                known[name] = _whole(name, text, low, high)
        return cls(**known)

    def tactic_sources(self, trt: Any) -> Optional[int]:
        """The bit mask of the chosen tactic sources; None takes TensorRT's default.

        Raises:
            EngineUnavailable: this version has no such source.
        """
        if self.tactics == "default":
            return None
        members = trt.TacticSource.__members__
        wanted: Tuple[str, ...] = INTERNAL
        if self.tactics != "internal":
            wanted = tuple(self.tactics.split("+"))
            unknown = [name for name in wanted if name not in members]
            if unknown:
                raise EngineUnavailable(
                    f"TensorRT {trt.__version__} has no tactics {', '.join(unknown)}.",
                    f"Choose from: default, internal, {', '.join(members)}.",
                )
        return sum(1 << int(members[name]) for name in wanted if name in members)


NAMES = tuple(field.name for field in fields(Options))

_LIMITS = {
    "workspace_mb": (1, 1 << 20),
    "optimization_level": (0, 5),
    "avg_timing": (1, 1000),
    "cuda_graph": (0, 1000),
}


def _whole(name: str, text: str, low: int, high: int) -> int:
    if text.isdigit() and low <= int(text) <= high:
        return int(text)
    raise UsageError(
        f"TensorRT's option {name}={text} is not a whole number from {low} to {high}.",
        f"Write for example {name}={low}.",
    )


def _one_of(name: str, text: str, known: Mapping[str, Any]) -> Any:
    if text in known:
        return known[text]
    raise UsageError(
        f"TensorRT's option {name}={text} is none of {', '.join(known)}.",
        f"Write for example {name}={next(iter(known))}.",
    )
