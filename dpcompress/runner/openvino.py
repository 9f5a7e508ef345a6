"""OpenVINO on the CPU (extra `openvino`).

Valid on Python 3.8.
"""

from __future__ import annotations

import time
from typing import Any, Callable, Dict, Mapping

import numpy as np

from dpcompress.errors import BadInput, EngineUnavailable
from dpcompress.runner.engine import Engine, Session, cpu_model, random_input, read


class OpenVino(Engine):
    """OpenVINO's CPU plugin, one stream, tuned for latency."""

    name = "openvino"

    def __init__(self, *, threads: int, precision: str, device: str) -> None:
        try:
            import openvino
        except ImportError as error:
            raise EngineUnavailable(
                "OpenVINO is not installed.", "Run: pip install 'dpcompress[openvino]'"
            ) from error
        if precision != "fp32" or device != "cpu":
            raise EngineUnavailable(
                f"OpenVINO is measured in fp32 on the cpu, not {precision} on {device}.",
                "Choose --precision fp32 --device cpu.",
            )
        self._openvino: Any = openvino
        self._core = openvino.Core()
        self.threads = threads

    @property
    def identity(self) -> Dict[str, str]:
        return {
            "engine": self.name,
            "engine_version": self._openvino.__version__.split("-")[0],
            "device": cpu_model(),
            "precision": "fp32",
            "threads": str(self.threads),
        }

    def load(self, onnx: bytes) -> Session:
        return self._compiled(lambda: self._core.read_model(onnx, b""))

    def load_file(self, path: str) -> Session:
        """An ONNX file, or OpenVINO IR: an .xml with its .bin beside it."""
        read(path)  # a file that cannot be read is told as everywhere
        return self._compiled(lambda: self._core.read_model(path))

    def save(self, onnx: bytes, path: str) -> None:
        """Write `onnx` as OpenVINO IR in fp32: `path`, which ends with .xml, and the
        weights beside it."""
        model = self._core.read_model(onnx, b"")
        self._openvino.save_model(model, path, compress_to_fp16=False)

    def _compiled(self, read_model: Callable[[], Any]) -> Session:
        # Without the precision hint the plugin runs in bf16 where the CPU can.
        config = {
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": "1",
            "INFERENCE_NUM_THREADS": str(self.threads),
            "INFERENCE_PRECISION_HINT": "f32",
        }
        try:
            compiled = self._core.compile_model(read_model(), "CPU", config)
        except Exception as error:
            text = (str(error).strip().splitlines() or ["no message"])[-1]
            raise BadInput(
                f"OpenVINO rejects the graph: {text.rstrip('.')}.",
                "Export the network with another opset or leave this op out.",
            ) from error
        return _OvSession(self._openvino, compiled)


class _OvSession(Session):
    def __init__(self, openvino: Any, compiled: Any) -> None:
        self._compiled = compiled
        self._request = compiled.create_infer_request()
        self._inputs = []
        for seed, port in enumerate(compiled.inputs):
            if port.partial_shape.is_dynamic:
                raise BadInput(
                    f"Input {port.any_name} of the graph has no fixed shape.",
                    "Export with a fixed batch size.",
                )
            value = random_input(tuple(port.shape), seed)
            self._request.set_tensor(port, openvino.Tensor(value, shared_memory=True))
            self._inputs.append(value)

    def run_many(self, n: int) -> float:
        # start_async + wait skips the wrapper's handling of inputs and outputs.
        start_async, wait = self._request.start_async, self._request.wait
        start = time.perf_counter()
        for _ in range(n):
            start_async()
            wait()
        return time.perf_counter() - start

    def infer(self, inputs: Mapping[str, np.ndarray]) -> Dict[str, np.ndarray]:
        # A request of its own, so that the bound inputs stay what they are.
        found = self._compiled.create_infer_request().infer(dict(inputs))
        return {port.any_name: np.array(found[port]) for port in self._compiled.outputs}
