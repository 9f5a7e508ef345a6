"""What measuring needs of an inference engine, and the engines by name."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Dict, Iterator, Mapping, Tuple

from dpcompress.errors import BadInput, EngineUnavailable, UsageError, first_line

if TYPE_CHECKING:
    import numpy as np


class Session(ABC):
    """A loaded graph with its inputs and outputs bound, so that no copy is timed."""

    @abstractmethod
    def run_many(self, n: int) -> float:
        """Run `n` inferences back to back and wait for the last one; returns the seconds
        that took, by the device's own clock if it has one (CUDA events).

        Raises:
            EngineUnavailable: the engine or its device stopped working.
        """

    @abstractmethod
    def infer(self, inputs: Mapping[str, np.ndarray]) -> Dict[str, np.ndarray]:
        """Compute the outputs for `inputs`, both by name; for checks, never timed."""

    def breakdown(self) -> Dict[str, float]:
        """Measure the parts of one inference, by name; most are milliseconds. Empty if
        the engine cannot tell."""
        return {}


class Engine(ABC):
    """An inference engine with its settings fixed; loads graphs into sessions.

    device: the one in use; in the class, the one that is used if none is asked for.
    options: names of the engine's own options; the constructor takes them as strings.
    most_copies: how often a cheap op may stand side by side with itself in the graph
        that it is timed in; 1 where the engine may run such copies as one.
    """

    name: str
    device = "cpu"
    options: Tuple[str, ...] = ()
    most_copies = 8

    @property
    @abstractmethod
    def identity(self) -> Dict[str, str]:
        """The facts that a time depends on besides the graph, by name: engine, version,
        device, precision, threads. Engines that differ in one never share a time."""

    @property
    def notes(self) -> Dict[str, str]:
        """The other facts for a table's header, such as the GPU's clocks so far."""
        return {}

    @property
    def group_bytes(self) -> int:
        """The memory that sessions may take together. It is less on a device with memory
        of its own, which is not asked what it has left."""
        return 12_000_000_000 if self.device == "cpu" else 3_000_000_000

    @abstractmethod
    def load(self, onnx: bytes) -> Session:
        """Build `onnx` for this engine and bind random inputs.

        Raises:
            BadInput: the engine rejects the graph; holds the engine's message.
        """

    def load_file(self, path: str) -> Session:
        """Load an ONNX file, or one of the engine's own format if it has one.

        Raises:
            BadInput: it cannot be read, or the engine rejects it.
        """
        return self.load(read(path))


# Name → module and class, imported when the engine is opened. Torch's is not part of the
# runner that is copied to a board, which must do without torch.
ENGINES = {
    "onnxruntime": ("dpcompress.runner.onnxruntime", "OnnxRuntime"),
    "openvino": ("dpcompress.runner.openvino", "OpenVino"),
    "tensorrt": ("dpcompress.runner.tensorrt.engine", "TensorRt"),
    "torch": ("dpcompress.latency.torch_engine", "Torch"),
}


@contextmanager
def working(name: str) -> Iterator[None]:
    """Turn whatever an engine raises into EngineUnavailable, around calls that run a
    loaded graph: what fails then is the engine or its device.

    Raises:
        EngineUnavailable: the engine `name` raised something.
    """
    try:
        yield
    except Exception as error:
        raise EngineUnavailable(
            f"{name} stopped working: {first_line(error)}.",
            "Check the device and its memory, and call again: what was measured is kept.",
        ) from error


def engine_class(name: str) -> Any:
    """Import the class of the engine `name`. Its constructor takes the keywords threads,
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
    """Split 'tensorrt:tactics=internal' into 'tensorrt' and {'tactics': 'internal'}.

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
    """Read a file.

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


def random_input(shape: Tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Draw standard normal values of the given shape: zeros and denormals would make some
    kernels faster or slower."""
    import numpy as np

    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)
