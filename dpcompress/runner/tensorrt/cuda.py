"""What a session needs of CUDA: memory, copies, events and graphs.

All of it comes from pycuda except graphs, which pycuda lacks: they come from the driver.
"""

from __future__ import annotations

import atexit
import ctypes
import time
from contextlib import contextmanager
from typing import Any, Callable, Iterator

import numpy as np

from dpcompress.errors import EngineUnavailable, first_line

_THREAD_LOCAL = 1  # CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
_BUSY_BYTES = 1 << 26


class Cuda:
    """A GPU and its primary context, which TensorRT uses too.

    Args:
        cuda, driver: see `Libraries`.
        index: number of the GPU, from 0.

    Raises:
        EngineUnavailable: there is no such GPU.
    """

    def __init__(self, cuda: Any, driver: Any, index: int) -> None:
        self._cuda, self._driver = cuda, driver
        with self.faults():
            cuda.init()
            count = cuda.Device.count()
            if index >= count:
                raise EngineUnavailable(
                    f"There is no GPU {index}: the driver sees {count}.",
                    f"Choose --device cuda:N with N below {count}.",
                )
            device = cuda.Device(index)
            context = device.retain_primary_context()
            context.push()
            atexit.register(context.pop)
            major, minor = device.compute_capability()
            self.name = f"{device.name()} (sm_{major}{minor})"
            self.bus_id = str(device.pci_bus_id())
            version = cuda.get_driver_version()
            self.version = f"{version // 1000}.{version % 1000 // 10}"
            self.stream = cuda.Stream()

    @contextmanager
    def faults(self) -> Iterator[None]:
        """Turn errors of CUDA into EngineUnavailable."""
        try:
            yield
        except self._cuda.MemoryError as error:
            raise self.out_of_memory() from error
        except self._cuda.Error as error:
            raise EngineUnavailable(
                f"The GPU failed: {first_line(error)}.",
                "Check it with nvidia-smi and run the same command again: what was "
                "measured is kept.",
            ) from error

    def out_of_memory(self) -> EngineUnavailable:
        """The error for too little memory; says how much is free."""
        free, total = self._cuda.mem_get_info()
        return EngineUnavailable(
            f"The GPU has not enough memory: {free / 1e9:.1f} of {total / 1e9:.1f} GB "
            "are free.",
            "End other programs on it, or choose a smaller --batch or workspace_mb.",
        )

    def allocate(self, size: int) -> Any:
        """Allocate bytes on the GPU. They are freed with the object that is returned,
        whose int() is their address."""
        with self.faults():
            return self._cuda.mem_alloc(max(size, 1))

    def pinned(self, array: np.ndarray) -> np.ndarray:
        """Copy `array` into memory that the GPU can read and write directly."""
        with self.faults():
            copy = self._cuda.pagelocked_empty(array.shape, array.dtype)
        copy[...] = array
        return copy

    def upload(self, memory: Any, array: np.ndarray) -> None:
        """Enqueue a copy of `array` to the GPU's `memory`."""
        self._cuda.memcpy_htod_async(memory, array, self.stream)

    def download(self, array: np.ndarray, memory: Any) -> None:
        """Enqueue a copy of the GPU's `memory` to `array`."""
        self._cuda.memcpy_dtoh_async(array, memory, self.stream)

    def wait(self) -> None:
        """Wait for all that was enqueued."""
        with self.faults():
            self.stream.synchronize()

    def timed(self, work: Callable[[], None]) -> float:
        """Run what `work` enqueues; returns the seconds by the GPU's own clock."""
        with self.faults():
            start, end = self._cuda.Event(), self._cuda.Event()
            start.record(self.stream)
            work()
            end.record(self.stream)
            end.synchronize()
            return float(end.time_since(start)) / 1e3

    def capture(self, work: Callable[[], None]) -> Graph:
        """Make a graph of what `work` enqueues, without running it.

        Raises:
            CaptureFailed: the driver cannot.
        """
        return Graph(self._driver, self.stream.handle, work)

    def busy(self, seconds: float) -> Iterator[None]:
        """Keep the GPU copying; yields now and then, so that its clocks can be read."""
        a, b = self.allocate(_BUSY_BYTES), self.allocate(_BUSY_BYTES)
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            for _ in range(50):
                self._cuda.memcpy_dtod_async(a, b, _BUSY_BYTES, self.stream)
            yield
            self.wait()


class CaptureFailed(Exception):
    """The driver cannot make a graph of this work."""


class Graph:
    """Work that the driver starts as a whole.

    Raises:
        CaptureFailed: the driver cannot make a graph of `work`.
    """

    def __init__(self, driver: Any, stream: int, work: Callable[[], None]) -> None:
        self._driver, self._stream = driver, ctypes.c_void_p(stream)
        graph, self._graph = ctypes.c_void_p(), ctypes.c_void_p()
        self._call("cuStreamBeginCapture_v2", self._stream, _THREAD_LOCAL)
        try:
            work()
        finally:
            code = driver.cuStreamEndCapture(self._stream, ctypes.byref(graph))
        if code or not graph:
            raise CaptureFailed(f"cuStreamEndCapture gives error {code}")
        try:
            flags = ctypes.c_ulonglong(0)
            made = ctypes.byref(self._graph)
            self._call("cuGraphInstantiateWithFlags", made, graph, flags)
        finally:
            driver.cuGraphDestroy(graph)

    def launch(self) -> None:
        """Enqueue the work once.

        Raises:
            EngineUnavailable: the GPU failed.
        """
        code = self._driver.cuGraphLaunch(self._graph, self._stream)
        if code:
            raise EngineUnavailable(
                f"The GPU failed: cuGraphLaunch gives error {code}.",
                "Check it with nvidia-smi and run the same command again.",
            )

    def __del__(self) -> None:
        if getattr(self, "_graph", None):
            self._driver.cuGraphExecDestroy(self._graph)

    def _call(self, name: str, *arguments: Any) -> None:
        try:
            code = getattr(self._driver, name)(*arguments)
        except AttributeError:
            raise CaptureFailed(f"this driver has no {name}") from None
        if code:
            raise CaptureFailed(f"{name} gives error {code}")
