"""What the sampling needs of an inference engine, and the engines by name.

Valid on Python 3.8.
"""

from __future__ import annotations

import ctypes
import importlib
import os
from abc import ABC, abstractmethod
from contextlib import contextmanager
from typing import Any, Dict, Iterator, Mapping, Tuple

import numpy as np

from dpcompress.errors import BadInput, EngineUnavailable, UsageError, first_line


class Session(ABC):
    """One loaded graph with its inputs and outputs bound: no copy is ever timed."""

    @abstractmethod
    def run_many(self, n: int) -> float:
        """Seconds for `n` back-to-back inferences, waited for at the end only.

        An engine with a clock of its own (CUDA events) answers with that one.
        """

    @abstractmethod
    def infer(self, inputs: Mapping[str, np.ndarray]) -> Dict[str, np.ndarray]:
        """Outputs for `inputs`, by name: for checks, never timed."""

    def breakdown(self) -> Dict[str, float]:
        """What the parts of one inference take; empty if the engine cannot tell."""
        return {}


class Engine(ABC):
    """An inference engine with its settings fixed; a factory of sessions."""

    name: str
    device = "cpu"
    """The one that is taken if none is asked for."""
    options: Tuple[str, ...] = ()
    """Names of what else may be chosen; the constructor takes them as strings."""
    most_copies = 8
    """How often a cheap op may stand in the graph that it is timed in, side by side with
    itself: 1 where such copies may be run as one."""

    @property
    @abstractmethod
    def identity(self) -> Dict[str, str]:
        """Everything that a time depends on besides the graph: engine, version, device,
        precision, threads. Flat; two engines that differ here never share a time."""

    @property
    def notes(self) -> Dict[str, str]:
        """What else a table's header should tell, such as the clocks seen so far."""
        return {}

    @property
    def group_bytes(self) -> int:
        """What sessions that are timed in turn may take together; on a device with memory
        of its own, nobody asks what it has left."""
        return 12_000_000_000 if self.device == "cpu" else 3_000_000_000

    @abstractmethod
    def load(self, onnx: bytes) -> Session:
        """Build `onnx` for this engine and bind random inputs.

        Raises:
            BadInput: the engine rejects the graph; carries its own message.
        """

    def load_file(self, path: str) -> Session:
        """`load` of a file: ONNX, or the engine's own kind if it has one.

        Raises:
            BadInput: it cannot be read, or the engine rejects it.
        """
        return self.load(read(path))


ENGINES = {
    "onnxruntime": ("dpcompress.runner.onnxruntime", "OnnxRuntime"),
    "openvino": ("dpcompress.runner.openvino", "OpenVino"),
    "tensorrt": ("dpcompress.runner.tensorrt.engine", "TensorRt"),
    "torch": ("dpcompress.latency.torch_engine", "Torch"),
}
"""Name → module and class, imported when the engine is opened. Torch's is not part of
the runner that is copied to a board, which must do without torch."""


@contextmanager
def working(name: str) -> Iterator[None]:
    """Around every call of an engine that has loaded its graph: what fails now is the
    engine or its device.

    Raises:
        EngineUnavailable: in place of whatever the engine raises.
    """
    try:
        yield
    except Exception as error:
        raise EngineUnavailable(
            f"{name} stopped working: {first_line(error)}.",
            "Check the device and its memory, and call again: what was measured is kept.",
        ) from error


def engine_class(name: str) -> Any:
    """The class of the engine `name`; its constructor takes the keywords threads,
    precision and device, and the engine's own options as strings.

    Raises:
        EngineUnavailable: a module that it needs is not installed.
    """
    module, found = ENGINES[name]
    try:
        return getattr(importlib.import_module(module), found)
    except ImportError as error:
        raise EngineUnavailable(
            f"The engine {name} cannot be loaded: {first_line(error)}.",
            "Run: pip install dpcompress",
        ) from error


def parse_engine(text: str) -> Tuple[str, Dict[str, str]]:
    """'tensorrt:tactics=internal' → ('tensorrt', {'tactics': 'internal'}).

    Raises:
        UsageError: no such engine, or an option that is not NAME=VALUE.
    """
    name, _, rest = text.partition(":")
    if name not in ENGINES:
        raise UsageError(
            f"There is no engine {name!r}.", f"Choose from: {', '.join(ENGINES)}."
        )
    options = {}
    for part in filter(None, rest.split(",")):
        key, equals, value = part.partition("=")
        if not equals:
            raise UsageError(
                f"The engine's option {part!r} is not NAME=VALUE.",
                "Write for example tensorrt:workspace_mb=512.",
            )
        options[key.strip()] = value.strip()
    return name, options


def read(path: str) -> bytes:
    """A file's bytes.

    Raises:
        BadInput: it cannot be read.
    """
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise BadInput(
            f"{path} cannot be read: {error.strerror}.", "Check the path."
        ) from error


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cpu_model() -> str:
    """The processor's own name for itself, "unknown" if it has none."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            for line in file:
                if line.startswith(("model name", "Model", "Hardware")):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    import platform

    return platform.processor() or platform.machine() or "unknown"


def gpu_model() -> str:
    """The name of the first CUDA device, "unknown" if the driver tells none."""
    try:
        driver = ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1")
        name, device = ctypes.create_string_buffer(256), ctypes.c_int()
        failed = (
            driver.cuInit(0)
            or driver.cuDeviceGet(ctypes.byref(device), 0)
            or driver.cuDeviceGetName(name, len(name), device)
        )
    except (OSError, AttributeError):
        failed = True
    return "unknown" if failed else name.value.decode(errors="replace")


def random_input(shape: Tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Standard normal values: no zeros or denormals, which some kernels run faster
    or slower on."""
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)
