"""torch as an engine: eager on the CPU, as a CUDA graph on the GPU."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from dpcompress.errors import BadInput, EngineUnavailable, first_line
from dpcompress.onnxio.model import input_shapes, parse
from dpcompress.onnxio.read import read
from dpcompress.runner import Engine, Session
from dpcompress.runner.engine import random_input, working
from dpcompress.runner.machine import cpu_model

_TYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
# Bounds of the relative error of a convolution with 64·3·3 products. Rounding alone gives
# about 2**-24, 2**-11 and 2**-8; TF32 as much as fp16.
_ERRORS = {"fp32": (0, 1e-5), "fp16": (1e-4, 1e-3), "bf16": (1e-3, 1e-2)}
_WARM_UPS = 3  # inferences before a CUDA graph is captured: cuDNN chooses its kernels


class Torch(Engine):
    """The engine torch, in channels-last layout, without autograd.

    fp32 is true fp32: TF32 is off. fp16 and bf16 are for CUDA.
    """

    name = "torch"

    def __init__(self, *, threads: int, precision: str, device: str) -> None:
        if device == "cuda" and not torch.cuda.is_available():
            raise EngineUnavailable(
                "This torch sees no CUDA device.",
                "Install a driver and a torch built for CUDA, or choose --device cpu.",
            )
        offered = {"cpu": ("fp32",), "cuda": tuple(_TYPES)}
        if device not in offered or precision not in offered[device]:
            raise EngineUnavailable(
                f"torch is not measured in {precision} on {device}.",
                f"Choose {', '.join(offered.get(device, offered['cpu']))}; devices are "
                "cpu and cuda.",
            )
        self.threads, self.precision, self.device = threads, precision, device
        kind = _TYPES[precision]
        with self.settings():
            check_precision(
                lambda x, w: F.conv2d(x.to(device, kind), w.to(device, kind)), precision
            )

    @property
    def identity(self) -> dict[str, str]:
        on_gpu = self.device == "cuda"
        return {
            "engine": self.name,
            "engine_version": torch.__version__,
            "device": f"cuda: {torch.cuda.get_device_name()}" if on_gpu else cpu_model(),
            "precision": self.precision,
            "threads": str(self.threads),
        }

    def load(self, onnx: bytes) -> Session:
        try:
            network = _Network(onnx, self.device, _TYPES[self.precision])
            with self.settings():
                return (_CudaSession if self.device == "cuda" else _CpuSession)(
                    self, network
                )
        except BadInput as error:
            raise BadInput(
                f"torch rejects the graph: {error.message}",
                "Measure on another engine, or leave this op out.",
            ) from error
        except RuntimeError as error:
            raise BadInput(
                f"torch rejects the graph: {first_line(error)}.",
                "Export the network with another opset or leave this op out.",
            ) from error

    @contextmanager
    def settings(self) -> Iterator[None]:
        """Set this engine's threads and arithmetic, and undo that at the end."""
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            exact = torch.backends.cudnn.flags(benchmark=True, allow_tf32=False)
            with exact, torch.inference_mode():
                yield
        finally:
            torch.set_num_threads(before)


class _Network:
    """An ONNX graph as a torch module, on a device, in its precision, channels last.

    inputs: name → shape.
    outputs: names.
    run: takes the inputs and returns the tuple of outputs.
    """

    def __init__(self, onnx: bytes, device: str, kind: torch.dtype) -> None:
        self._device, self._kind = device, kind
        model = parse(onnx)
        self.inputs = input_shapes(model)
        self.outputs = [output.name for output in model.graph.output]
        module = read(onnx)
        for weights in (*module.parameters(), *module.buffers()):
            weights.data = self.placed(weights.data)
        # nn.Module finds weights and calls parts in Python code, which shows beside small
        # kernels. Plain attributes are found at once, and forward() needs no hooks.
        for part in module.modules():
            vars(part).update(part.named_parameters(recurse=False))
            vars(part).update(part.named_buffers(recurse=False))
        for name, part in module.named_children():
            vars(module)[name] = part.forward
        self.run = module.forward

    def placed(self, tensor: Tensor) -> Tensor:
        """Move `tensor` to the device, in its precision and layout."""
        if tensor.is_floating_point():
            tensor = tensor.to(self._kind)
        tensor = tensor.to(self._device)
        if tensor.dim() == 4:
            tensor = tensor.contiguous(memory_format=torch.channels_last)
        return tensor


class _CpuSession(Session):
    def __init__(self, engine: Torch, network: _Network) -> None:
        self._engine, self._network = engine, network
        self._inputs = [
            network.placed(torch.from_numpy(random_input(shape, seed)))
            for seed, shape in enumerate(network.inputs.values())
        ]
        network.run(*self._inputs)

    def run_many(self, n: int) -> float:
        run, inputs = self._network.run, self._inputs
        with self._engine.settings(), working(self._engine.name):
            start = time.perf_counter()
            for _ in range(n):
                run(*inputs)
            return time.perf_counter() - start

    def infer(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        network = self._network
        with self._engine.settings(), working(self._engine.name):
            values = (torch.from_numpy(inputs[name]) for name in network.inputs)
            outputs = network.run(*map(network.placed, values))
        arrays = (output.float().cpu().numpy() for output in outputs)
        return dict(zip(network.outputs, arrays, strict=True))


class _CudaSession(_CpuSession):
    """Launches all kernels by one call, so that the GPU never waits for Python."""

    def __init__(self, engine: Torch, network: _Network) -> None:
        super().__init__(engine, network)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UPS):
                network.run(*self._inputs)
        torch.cuda.current_stream().wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._outputs = network.run(*self._inputs)
        self._start = torch.cuda.Event(enable_timing=True)
        self._stop = torch.cuda.Event(enable_timing=True)

    def run_many(self, n: int) -> float:
        with working(self._engine.name):
            self._start.record()
            for _ in range(n):
                self._graph.replay()
            self._stop.record()
            self._stop.synchronize()
            return float(self._start.elapsed_time(self._stop)) / 1e3


def check_precision(convolve: Callable[[Tensor, Tensor], Tensor], precision: str) -> None:
    """Check by its rounding error that `convolve` computes in `precision`.

    Raises:
        EngineUnavailable: it computes in more or fewer bits.
    """
    generator = torch.Generator().manual_seed(0)
    x, weight = (torch.randn(64, 64, 8, 8, generator=generator) for _ in range(2))
    weight = weight[..., :3, :3]
    exact = F.conv2d(x.double(), weight.double())
    error = float((convolve(x, weight).double().cpu() - exact).norm() / exact.norm())
    low, high = _ERRORS[precision]
    if not low < error < high:
        raise EngineUnavailable(
            f"torch does not compute in {precision} here: a convolution is off by "
            f"{error:.1g} of its result.",
            "Undo what sets the precision of torch, such as its environment variables.",
        )
