"""ONNX Runtime: CPU, and CUDA where its provider is installed."""

from __future__ import annotations

import time
from typing import Any, Dict, Mapping

import numpy as np

from dpcompress.errors import BadInput, EngineUnavailable, first_line
from dpcompress.runner.engine import (
    Engine,
    Session,
    random_input,
    working,
)
from dpcompress.runner.machine import cpu_model, gpu_model

_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
_PRECISIONS = {"cpu": ("fp32",), "cuda": ("fp32", "tf32")}


class OnnxRuntime(Engine):
    """The engine ONNX Runtime, sequential, with all graph optimizations.

    On CUDA, fp32 is true fp32; tf32 is ONNX Runtime's own default.
    """

    name = "onnxruntime"

    def __init__(self, *, threads: int, precision: str, device: str) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise EngineUnavailable(
                "ONNX Runtime is not installed.", "Run: pip install onnxruntime"
            ) from error
        if precision not in _PRECISIONS.get(device, ("fp32",)):
            raise EngineUnavailable(
                f"ONNX Runtime is not measured in {precision} on {device}.",
                "Choose --precision fp32.",
            )
        provider = _PROVIDERS.get(device)
        if provider not in onnxruntime.get_available_providers():
            raise EngineUnavailable(
                f"This ONNX Runtime has no device {device!r}.",
                "For CUDA run: pip install onnxruntime-gpu",
            )
        self._ort: Any = onnxruntime
        self.threads, self.precision = threads, precision
        self.device, self.provider = device, provider
        self._options = {}
        if device == "cuda":
            self._options["use_tf32"] = "1" if precision == "tf32" else "0"

    @property
    def identity(self) -> Dict[str, str]:
        return {
            "engine": self.name,
            "engine_version": self._ort.__version__,
            "device": cpu_model() if self.device == "cpu" else f"cuda: {gpu_model()}",
            "precision": self.precision,
            "threads": str(self.threads),
        }

    def load(self, onnx: bytes) -> Session:
        options = self._ort.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4
        # Many sessions live side by side: one that has just run must not go on
        # spinning on the core that the next one is timed on.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        try:
            session = self._ort.InferenceSession(
                onnx, options, providers=[(self.provider, self._options)]
            )
        except Exception as error:
            raise BadInput(
                f"ONNX Runtime rejects the graph: {first_line(error)}.",
                "Export the network with another opset or leave this op out.",
            ) from error
        told = session.get_provider_options().get(self.provider, {})
        if any(told.get(key) != value for key, value in self._options.items()):
            raise EngineUnavailable(
                f"This ONNX Runtime cannot compute in {self.precision} on {self.device}.",
                "Install a newer onnxruntime-gpu.",
            )
        if session.get_providers()[0] != self.provider:
            raise EngineUnavailable(
                f"ONNX Runtime could not start {self.provider}.",
                "Check the driver and the CUDA libraries that it was built for.",
            )
        return _OrtSession(self._ort, session, self.device)


class _OrtSession(Session):
    def __init__(self, ort: Any, session: Any, device: str) -> None:
        self._session = session
        self._binding = session.io_binding()
        self._values = []
        for seed, node in enumerate(session.get_inputs()):
            if not all(isinstance(n, int) for n in node.shape):
                raise BadInput(
                    f"Input {node.name} of the graph has no fixed shape: {node.shape}.",
                    "Export with a fixed batch size.",
                )
            value = ort.OrtValue.ortvalue_from_numpy(
                random_input(tuple(node.shape), seed), device, 0
            )
            self._binding.bind_ortvalue_input(node.name, value)
            self._values.append(value)
        for node in session.get_outputs():
            if all(isinstance(n, int) for n in node.shape):
                value = ort.OrtValue.ortvalue_from_shape_and_type(
                    node.shape, np.float32, device, 0
                )
                self._binding.bind_ortvalue_output(node.name, value)
                self._values.append(value)
            else:
                self._binding.bind_output(node.name, device)

    def run_many(self, n: int) -> float:
        run, binding = self._session.run_with_iobinding, self._binding
        with working("ONNX Runtime"):
            start = time.perf_counter()
            for _ in range(n):
                run(binding)
            return time.perf_counter() - start

    def infer(self, inputs: Mapping[str, np.ndarray]) -> Dict[str, np.ndarray]:
        names = [node.name for node in self._session.get_outputs()]
        return dict(zip(names, self._session.run(names, dict(inputs))))
