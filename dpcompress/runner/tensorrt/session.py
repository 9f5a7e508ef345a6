"""Runs a built engine with its inputs and outputs on the GPU."""

from __future__ import annotations

import time
from typing import Any, Callable, Dict, List, Mapping, Tuple

import numpy as np

from dpcompress.errors import BadInput, EngineUnavailable
from dpcompress.runner.engine import Session, random_input
from dpcompress.runner.statistics import quantile
from dpcompress.runner.tensorrt.build import log_of
from dpcompress.runner.tensorrt.cuda import CaptureFailed, Cuda

_WARM_UP_S = 0.2
_BREAKDOWN_S = 3.0
_DTYPES = {
    "FLOAT": np.float32,
    "HALF": np.float16,
    "INT8": np.int8,
    "UINT8": np.uint8,
    "INT32": np.int32,
    "INT64": np.int64,
    "BOOL": np.bool_,
}


class TrtSession(Session):
    """A session of a built engine.

    inputs, outputs: name → shape.

    Args:
        runtime: trt.Runtime, which must live as long as the session.
        cuda_engine: trt.ICudaEngine.
        layers: number of layers by the numbers they compute in.
        graph: inferences per CUDA graph; 0 launches each layer.
        look: called after each timing; reads the GPU's clocks.

    Raises:
        BadInput: an input or output has no fixed shape.
        EngineUnavailable: not enough memory.
    """

    def __init__(
        self,
        trt: Any,
        cuda: Cuda,
        runtime: Any,
        cuda_engine: Any,
        *,
        layers: Dict[str, int],
        graph: int,
        look: Callable[[], None],
    ) -> None:
        self._trt, self._cuda, self._engine, self._look = trt, cuda, cuda_engine, look
        self._runtime, self.layers = runtime, layers
        self._context = cuda_engine.create_execution_context()
        if self._context is None:
            raise cuda.out_of_memory()
        self.inputs: Dict[str, Tuple[int, ...]] = {}
        self.outputs: Dict[str, Tuple[int, ...]] = {}
        self._dtypes: Dict[str, Any] = {}
        self._host: Dict[str, np.ndarray] = {}
        self._memory: Dict[str, Any] = {}
        for index in range(cuda_engine.num_io_tensors):
            self._bind(cuda_engine.get_tensor_name(index))
        self._upload()
        cuda.wait()
        self._graphs = self._captured(graph)

    def _bind(self, name: str) -> None:
        cuda_engine = self._engine
        shape = tuple(int(n) for n in cuda_engine.get_tensor_shape(name))
        if any(n < 0 for n in shape):
            raise BadInput(
                f"{name} of the graph has no fixed shape: {shape}.",
                "Export with a fixed batch size.",
            )
        kind = _DTYPES.get(cuda_engine.get_tensor_dtype(name).name)
        if kind is None:
            raise BadInput(f"{name} of the graph is not of numbers that numpy has.")
        mode = cuda_engine.get_tensor_mode(name)
        is_input = mode == self._trt.TensorIOMode.INPUT
        seed = len(self.inputs)
        (self.inputs if is_input else self.outputs)[name] = shape
        value = random_input(shape, seed) if is_input else np.zeros(shape)
        self._dtypes[name] = kind
        self._host[name] = self._cuda.pinned(value.astype(kind))
        self._memory[name] = self._cuda.allocate(self._host[name].nbytes)
        self._context.set_tensor_address(name, int(self._memory[name]))

    def _captured(self, count: int) -> List[Tuple[int, Callable[[], None]]]:
        """Capture CUDA graphs, or take functions: (number of inferences, its launch), the
        largest number first."""
        self._enqueue()  # the first one sets up what a graph may not
        self._cuda.wait()
        singly = [(1, self._enqueue)]
        if not count:
            return singly
        try:
            sizes = (count, 1) if count > 1 else (1,)
            return [(n, self._cuda.capture(self._many(n)).launch) for n in sizes]
        except CaptureFailed:
            return singly

    def _many(self, n: int) -> Callable[[], None]:
        def enqueue() -> None:
            for _ in range(n):
                self._enqueue()

        return enqueue

    @property
    def has_graph(self) -> bool:
        """Whether inferences are launched as CUDA graphs."""
        return self._graphs[-1][1] != self._enqueue

    def _enqueue(self) -> None:
        if not self._context.execute_async_v3(self._cuda.stream.handle):
            raise EngineUnavailable(
                f"TensorRT cannot run the graph: {log_of(self._trt).last}.",
                "Check the GPU with nvidia-smi and run the same command again.",
            )

    def _launch(self, n: int) -> None:
        for size, start in self._graphs:
            for _ in range(n // size):
                start()
            n %= size

    def _upload(self) -> None:
        for name in self.inputs:
            self._cuda.upload(self._memory[name], self._host[name])

    def _download(self) -> None:
        for name in self.outputs:
            self._cuda.download(self._host[name], self._memory[name])

    def run_many(self, n: int) -> float:
        seconds = self._cuda.timed(lambda: self._launch(n))
        self._look()
        return seconds

    def infer(self, inputs: Mapping[str, np.ndarray]) -> Dict[str, np.ndarray]:
        """Compute the outputs for `inputs`, both by name.

        Raises:
            BadInput: inputs of other names or shapes, such as another batch size.
        """
        given = {name: tuple(value.shape) for name, value in inputs.items()}
        if given != self.inputs:
            raise BadInput(
                f"The engine takes {_shapes(self.inputs)}, not {_shapes(given)}.",
                "Export it for this batch and input size.",
            )
        kept = {name: self._host[name].copy() for name in inputs}
        for name, value in inputs.items():
            self._host[name][...] = value.astype(self._dtypes[name])
        self._upload()
        self._launch(1)
        self._download()
        self._cuda.wait()
        found = {name: self._host[name].copy() for name in self.outputs}
        for name, value in kept.items():
            self._host[name][...] = value
        self._upload()
        self._cuda.wait()
        return found

    def breakdown(self) -> Dict[str, float]:
        """Measure the parts of one inference, named as by trtexec.

        Returns:
            compute_*_ms: on the GPU, with inputs and outputs in its memory. enqueue_ms:
            on the host, to start one. h2d_ms, d2h_ms: copies to and from the GPU. These
            three are medians. per_second: inferences back to back. samples: number of
            inferences that were timed singly.
        """
        compute: List[float] = []
        enqueue: List[float] = []
        up: List[float] = []
        down: List[float] = []
        self._run_for(_WARM_UP_S)
        end = time.perf_counter() + _BREAKDOWN_S
        while time.perf_counter() < end or len(compute) < 10:
            up.append(self._cuda.timed(self._upload))
            began = time.perf_counter()
            self._graphs[-1][1]()
            enqueue.append(time.perf_counter() - began)
            self._cuda.wait()
            compute.append(self.run_many(1))
            down.append(self._cuda.timed(self._download))
        many = max(10, round(_BREAKDOWN_S / 6 / quantile(compute, 0.5)))
        return {
            "compute_min_ms": min(compute) * 1e3,
            "compute_mean_ms": sum(compute) / len(compute) * 1e3,
            "compute_median_ms": quantile(compute, 0.5) * 1e3,
            "compute_p90_ms": quantile(compute, 0.9) * 1e3,
            "compute_p95_ms": quantile(compute, 0.95) * 1e3,
            "compute_p99_ms": quantile(compute, 0.99) * 1e3,
            "enqueue_ms": quantile(enqueue, 0.5) * 1e3,
            "h2d_ms": quantile(up, 0.5) * 1e3,
            "d2h_ms": quantile(down, 0.5) * 1e3,
            "per_second": many / self.run_many(many),
            "samples": len(compute),
        }

    def _run_for(self, seconds: float) -> None:
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            self.run_many(10)


def _shapes(tensors: Mapping[str, Tuple[int, ...]]) -> str:
    return ", ".join(f"{k} {'x'.join(map(str, v))}" for k, v in tensors.items())
