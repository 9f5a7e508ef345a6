"""TensorRT as one of the runner's engines."""

from __future__ import annotations

import json
import os
import re
import warnings
from typing import Dict, Optional

from dpcompress.errors import BadInput, DpcompressWarning, EngineUnavailable
from dpcompress.runner.cache import cache_folder
from dpcompress.runner.engine import Engine, read
from dpcompress.runner.nvml import NOT_LOCKED, UNKNOWN, Clocks
from dpcompress.runner.tensorrt.build import PRECISIONS, build, log_of
from dpcompress.runner.tensorrt.cuda import Cuda
from dpcompress.runner.tensorrt.libraries import open_libraries
from dpcompress.runner.tensorrt.options import NAMES, Options
from dpcompress.runner.tensorrt.precision import check_precision
from dpcompress.runner.tensorrt.session import TrtSession
from dpcompress.runner.tensorrt.timing_cache import TimingCache

_PROBE_S = 0.5  # for which the GPU is kept busy to see whether its clocks are locked


class TensorRt(Engine):
    """The engine TensorRT on one NVIDIA GPU. Times are the GPU's own, without copies.

    Raises:
        EngineUnavailable: TensorRT, pycuda, a driver or the GPU is missing, or it is not
            measured in this precision.
        UsageError: an option has an impossible value.
    """

    name = "tensorrt"
    device = "cuda"
    options = NAMES
    most_copies = 1  # convolutions of one tensor may be fused into one

    def __init__(
        self, *, threads: int, precision: str, device: str, **options: str
    ) -> None:
        self._options = Options.parse(options)
        if precision not in PRECISIONS:
            raise EngineUnavailable(
                f"TensorRT is measured in {', '.join(PRECISIONS)}, not {precision}.",
                "Choose one of them with --precision.",
            )
        index = _index(device)
        self.precision = precision
        self._trt, drv, driver = open_libraries()
        self._cuda = Cuda(drv, driver, index)
        self._given = ",".join(f"{k}={v}" for k, v in sorted(options.items()))
        self._clocks = Clocks(self._cuda.bus_id)
        self._lock = self._clocks.lock(self._cuda.busy(_PROBE_S))
        self._warn_of_clocks()
        self._without_graph = 0
        about = {"tensorrt": self._trt.__version__, "device": self._cuda.name}
        self._cache = TimingCache(self._cache_path(about), about)

    def _warn_of_clocks(self) -> None:
        fault = f"GPU clocks are {self._lock}"
        if self._lock == NOT_LOCKED:
            remedy = (
                "lock them with: nvidia-smi -lgc MHZ,MHZ (on a Jetson: jetson_clocks)"
            )
        elif self._lock == UNKNOWN:
            fault += f" ({self._clocks.why})"
            remedy = (
                "pip install nvidia-ml-py, and lock them (on a Jetson: jetson_clocks)"
            )
        else:
            return
        message = f"{fault}, so times may drift; {remedy}."
        warnings.warn(message, DpcompressWarning, stacklevel=2)

    def _cache_path(self, about: Dict[str, str]) -> Optional[str]:
        if not self._options.timing_cache:
            return None
        named = os.environ.get("DPCOMPRESS_TIMING_CACHE")
        if named:
            return named
        safe = re.sub(r"[^\w.]+", "_", "-".join(about.values())).strip("_")
        return os.path.join(cache_folder(), f"tensorrt-{safe}.timing")

    @property
    def identity(self) -> Dict[str, str]:
        options = self._options
        level = options.optimization_level
        return {
            "engine": f"{self.name}:{self._given}" if self._given else self.name,
            "engine_version": str(self._trt.__version__),
            "device": self._cuda.name,
            "cuda": self._cuda.version,
            "precision": self.precision,
            "threads": "1",
            "workspace_mb": str(options.workspace_mb),
            "optimization_level": "default" if level is None else str(level),
            "tactics": options.tactics,
            "avg_timing": str(options.avg_timing),
            "timing_cache": "on" if options.timing_cache else "off",
            "cuda_graph": str(options.cuda_graph),
            "clocks": self._lock,
        }

    @property
    def notes(self) -> Dict[str, str]:
        notes = self._clocks.notes
        if self._without_graph:
            notes["without_cuda_graph"] = str(self._without_graph)
        return notes

    def load(self, onnx: bytes) -> TrtSession:
        return self.start(self.build(onnx))

    def build(self, onnx: bytes) -> bytes:
        """Build `onnx` into a serialized engine, the content of an engine file.

        Raises:
            BadInput: the parser or the builder rejects the graph.
            EngineUnavailable: not enough memory.
        """
        try:
            return build(self._trt, onnx, self.precision, self._options, self._cache)
        except MemoryError:
            raise self._cuda.out_of_memory() from None

    def start(self, plan: bytes, name: str = "The engine") -> TrtSession:
        """Start a session of a serialized engine.

        Args:
            plan: what `build` returned or an engine file holds (TensorRT's word; not a
                plan of spans).
            name: what to call it in errors.

        Raises:
            BadInput: TensorRT cannot read it: it was built by another version or GPU.
            EngineUnavailable: it computes in another precision, or there is not enough
                memory.
        """
        trt = self._trt
        log = log_of(trt)
        del log.errors[:]
        runtime = trt.Runtime(log)
        cuda_engine = runtime.deserialize_cuda_engine(plan)
        if cuda_engine is None:
            if log.memory_is_short:
                raise self._cuda.out_of_memory()
            raise BadInput(
                f"{name} cannot be read by TensorRT {trt.__version__} on "
                f"{self._cuda.name}: {log.last}.",
                "An engine runs on the GPU and TensorRT it was built with: export again.",
            )
        inspector = cuda_engine.create_engine_inspector()
        kind = trt.LayerInformationFormat.JSON
        information = inspector.get_engine_information(kind)
        session = TrtSession(
            trt,
            self._cuda,
            runtime,
            cuda_engine,
            layers=check_precision(information, self.precision),
            graph=self._options.cuda_graph,
            look=self._clocks.look,
        )
        if self._options.cuda_graph and not session.has_graph:
            self._without_graph += 1
        return session

    def load_file(self, path: str) -> TrtSession:
        """Load an ONNX file, or an engine that `export --to tensorrt` or trtexec wrote.

        Raises:
            BadInput: it cannot be read, or was built for another GPU, TensorRT or
                precision.
        """
        data = read(path)
        if path.endswith(".onnx"):
            return self.load(data)
        self._check_sidecar(path)
        return self.start(data, path)

    def _check_sidecar(self, path: str) -> None:
        """Refuse an engine that, by the description beside it, is not for this machine
        or precision; without a description TensorRT decides."""
        try:
            with open(f"{path}.json", encoding="utf-8") as file:
                made = json.load(file)["engine"]
            told = {key: str(made[key]) for key in (*_MACHINE, "precision")}
        except (OSError, ValueError, KeyError, TypeError):
            return
        here = self.identity
        wrong = [
            f"{key} {told[key]}, not {here[key]}"
            for key in _MACHINE
            if told[key] != here[key]
        ]
        if wrong:
            raise BadInput(
                f"{path} was built for another machine: {'; '.join(wrong)}.",
                "An engine runs on the GPU and TensorRT it was built with: export again.",
            )
        if told["precision"] != self.precision:
            raise BadInput(
                f"{path} was built in {told['precision']}, not {self.precision}.",
                f"Add --precision {told['precision']}.",
            )


_MACHINE = ("engine_version", "device")


def _index(device: str) -> int:
    kind, colon, number = device.partition(":")
    if kind != "cuda" or (colon and not number.isdigit()):
        raise EngineUnavailable(
            f"TensorRT has no device {device!r}.", "Choose --device cuda or cuda:1."
        )
    return int(number or 0)
