"""OpenVINO on the CPU (extra `openvino`)."""

from __future__ import annotations

import time
from typing import Any, Callable, Dict, Mapping

import numpy as np

from dpcompress.errors import BadInput, EngineUnavailable
from dpcompress.runner.engine import (
    Engine,
    Session,
    random_input,
    read,
    working,
)
from dpcompress.runner.machine import cpu_model

# Our name of a precision → OpenVINO's, which it also gives to tensors of that type.
_NAMES = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}


class OpenVino(Engine):
    """The engine OpenVINO on a CPU, with one stream, tuned for latency. It computes in
    bf16 and fp16 where the processor can."""

    name = "openvino"

    def __init__(self, *, threads: int, precision: str, device: str) -> None:
        try:
            import openvino
        except ImportError as error:
            raise EngineUnavailable(
                "OpenVINO is not installed.", "Run: pip install 'dpcompress[openvino]'"
            ) from error
        self._openvino: Any = openvino
        self._core = openvino.Core()
        able = self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        offered = [p for p, name in _NAMES.items() if p.upper() in able]
        if device != "cpu" or precision not in offered:
            raise EngineUnavailable(
                f"OpenVINO does not compute in {precision} on this {device}.",
                f"Choose --device cpu and one of: {', '.join(offered)}.",
            )
        self.threads, self.precision = threads, precision

    @property
    def identity(self) -> Dict[str, str]:
        return {
            "engine": self.name,
            "engine_version": self._openvino.__version__.split("-")[0],
            "device": cpu_model(),
            "precision": self.precision,
            "threads": str(self.threads),
        }

    def load(self, onnx: bytes) -> Session:
        return self._compiled(lambda: self._core.read_model(onnx, b""))

    def load_file(self, path: str) -> Session:
        """Load an ONNX file, or OpenVINO IR: an .xml with its .bin beside it."""
        read(path)  # for the usual error if it cannot be read
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
            "INFERENCE_PRECISION_HINT": _NAMES[self.precision],
        }
        try:
            compiled = self._core.compile_model(read_model(), "CPU", config)
        except Exception as error:
            text = (str(error).strip().splitlines() or ["no message"])[-1]
            raise BadInput(
                f"OpenVINO rejects the graph: {text.rstrip('.')}.",
                "Export the network with another opset or leave this op out.",
            ) from error
        check_precision(compiled, self.precision)
        return _OvSession(self._openvino, compiled)


def check_precision(compiled: Any, precision: str) -> None:
    """Check the precision that the convolutions of a compiled model really run in.

    Raises:
        EngineUnavailable: one runs in another than `precision`.
    """
    for op in compiled.get_runtime_model().get_ops():
        told = {k: str(getattr(v, "value", v)) for k, v in op.get_rt_info().items()}
        runs_in = told.get("runtimePrecision")
        if told.get("layerType") == "Convolution" and runs_in != _NAMES[precision]:
            raise EngineUnavailable(
                f"OpenVINO runs {op.get_friendly_name()} in {runs_in}, not {precision}.",
                "Choose --precision fp32.",
            )


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
        with working("OpenVINO"):
            start = time.perf_counter()
            for _ in range(n):
                start_async()
                wait()
            return time.perf_counter() - start

    def infer(self, inputs: Mapping[str, np.ndarray]) -> Dict[str, np.ndarray]:
        # A request of its own, so that the bound inputs stay what they are.
        found = self._compiled.create_infer_request().infer(dict(inputs))
        return {port.any_name: np.array(found[port]) for port in self._compiled.outputs}
