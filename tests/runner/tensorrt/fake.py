"""A make-believe TensorRT, pycuda and driver, generated from a version's signatures.

What it is good for: every class, attribute and call that the version lacks fails here as
it would there, and what goes wrong on a machine can be made to go wrong. Its limits: it
builds nothing (the "engine" is the ONNX graph itself, run by ONNX Runtime on the CPU),
chooses no tactics, has no GPU memory of its own, and its times mean nothing. Messages of
the builder and the runtime are made up; the layout of the inspector's JSON is that of
NVIDIA's documentation. That the real libraries behave like this is not shown by it.
"""

import ctypes
import enum
import importlib.machinery
import json
import sys
import time
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from dpcompress.runner.tensorrt import libraries
from tests.runner.tensorrt.signatures import Api, Use

HALF = onnx.TensorProto.FLOAT16


class Machine:
    """One GPU host. Set an attribute to let something go wrong.

    parser_fault: (node, its name, message); build_fault: the builder's log line;
    free: bytes of GPU memory; fast_fp16: what the builder says of the GPU;
    ignores_fp16: builds fp32 whatever is asked for; refuses_caches: no timing cache
    fits; captures: whether CUDA graphs work.
    """

    def __init__(self, api: Api) -> None:
        self.api = api
        self.gpu = "Imaginary GPU"
        self.parser_fault: tuple[int, str, str] | None = None
        self.build_fault: str | None = None
        self.free = 1 << 30
        self.fast_fp16 = True
        self.ignores_fp16 = False
        self.refuses_caches = False
        self.captures = True
        self.log: Any = None
        self.configs: list[Any] = []
        self.memory: dict[int, Any] = {}
        self.capturing: list[Callable[[], None]] | None = None
        self.graphs: dict[int, list[Callable[[], None]]] = {}
        self.launched = 0

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let `open_libraries` find this machine."""
        pycuda = types.ModuleType("pycuda")
        pycuda.driver = _pycuda_driver(self)  # type: ignore[attr-defined]
        modules = {
            "tensorrt": _tensorrt(self),
            "pycuda": pycuda,
            "pycuda.driver": pycuda.driver,
        }
        for name, module in modules.items():
            module.__spec__ = importlib.machinery.ModuleSpec(name, None)
            monkeypatch.setitem(sys.modules, name, module)
        found = (_LibCuda(self), "", "")
        monkeypatch.setattr(libraries, "_driver", lambda: found)

    def enqueue(self, work: Callable[[], None]) -> None:
        if self.capturing is None:
            work()
        else:
            self.capturing.append(work)

    # ---- what TensorRT's objects do; names are CLASS_METHOD ----

    def Builder___init__(self, builder: Any, log: Any) -> None:
        self.log = log
        builder.state["platform_has_fast_fp16"] = self.fast_fp16

    def Builder_create_network(self, builder: Any, flags: int = 0) -> Any:
        return self.made("INetworkDefinition", flags=flags)

    def Builder_create_builder_config(self, builder: Any) -> Any:
        config = self.made("IBuilderConfig", flags=set(), cache=None)
        self.configs.append(config)
        return config

    def OnnxParser___init__(self, parser: Any, network: Any, log: Any) -> None:
        parser.state["network"] = network

    def OnnxParser_parse(self, parser: Any, model: bytes) -> bool:
        if self.parser_fault is not None:
            parser.state["num_errors"] = 1
            return False
        network, graph = parser.state["network"], onnx.load_from_string(model).graph
        types = [value.type.tensor_type.elem_type for value in graph.input]
        kinds = ["HALF" if t == HALF else "FLOAT" for t in types]
        network.state.update(onnx=model, num_inputs=len(kinds), kinds=kinds)
        return True

    def OnnxParser_get_error(self, parser: Any, index: int) -> Any:
        assert self.parser_fault is not None and index == 0
        node, name, text = self.parser_fault
        fault = types.SimpleNamespace(node=lambda: node, desc=lambda: text)
        if not self.api.version.startswith("8."):
            fault.node_name = lambda: name
        return fault

    def INetworkDefinition_get_input(self, network: Any, index: int) -> Any:
        data_type = sys.modules["tensorrt"].DataType
        kind = getattr(data_type, network.state["kinds"][index])
        return types.SimpleNamespace(dtype=kind)

    def IBuilderConfig_set_flag(self, config: Any, flag: Any) -> None:
        config.state["flags"].add(flag.name)

    def IBuilderConfig_clear_flag(self, config: Any, flag: Any) -> None:
        config.state["flags"].discard(flag.name)

    def IBuilderConfig_set_memory_pool_limit(self, config: Any, *_: Any) -> None: ...

    def IBuilderConfig_set_tactic_sources(self, config: Any, mask: int) -> bool:
        config.state["mask"] = mask
        return True

    def IBuilderConfig_set_preview_feature(
        self, config: Any, feature: Any, on: Any
    ) -> None:
        config.state["preview"] = feature.name

    def IBuilderConfig_create_timing_cache(self, config: Any, data: bytes) -> Any:
        return self.made("ITimingCache", data=data)

    def IBuilderConfig_set_timing_cache(
        self, config: Any, cache: Any, ignore_mismatch: bool
    ) -> bool:
        assert not ignore_mismatch
        if self.refuses_caches and cache.state["data"]:
            return False
        config.state["cache"] = cache
        return True

    def IBuilderConfig_get_timing_cache(self, config: Any) -> Any:
        return config.state["cache"]

    def ITimingCache_serialize(self, cache: Any) -> bytes:
        return bytes(cache.state["data"])

    def Builder_build_serialized_network(
        self, builder: Any, network: Any, config: Any
    ) -> bytes | None:
        if self.build_fault is not None:
            self.log.log(1, self.build_fault)
            return None
        if config.state["cache"] is not None:
            config.state["cache"].state["data"] += b"a tactic;"
        half = "FP16" in config.state["flags"] or set(network.state["kinds"]) == {"HALF"}
        precision = "FP16" if half and not self.ignores_fp16 else "FP32"
        made_for = f"{self.api.version} {self.gpu} {precision}"
        return made_for.encode() + b"\n" + network.state["onnx"]

    def Runtime___init__(self, runtime: Any, log: Any) -> None:
        self.log = log

    def Runtime_deserialize_cuda_engine(self, runtime: Any, plan: bytes) -> Any:
        head, _, graph = plan.partition(b"\n")
        made_for, _, precision = head.decode("latin1").rpartition(" ")
        if made_for != f"{self.api.version} {self.gpu}":
            self.log.log(1, "Error Code 1: Serialization (magic tag does not match.)")
            return None
        body = onnx.load_from_string(graph).graph
        tensors = [*body.input, *body.output]
        return self.made(
            "ICudaEngine",
            num_io_tensors=len(tensors),
            tensors={tensor.name: tensor.type.tensor_type for tensor in tensors},
            inputs=len(body.input),
            graph=graph,
            precision=precision,
        )

    def ICudaEngine_get_tensor_name(self, cuda_engine: Any, index: int) -> str:
        return list(cuda_engine.state["tensors"])[index]

    def ICudaEngine_get_tensor_shape(self, cuda_engine: Any, name: str) -> list[int]:
        dims = cuda_engine.state["tensors"][name].shape.dim
        return [dim.dim_value if dim.HasField("dim_value") else -1 for dim in dims]

    def ICudaEngine_get_tensor_dtype(self, cuda_engine: Any, name: str) -> Any:
        data_type = sys.modules["tensorrt"].DataType
        half = cuda_engine.state["tensors"][name].elem_type == HALF
        return data_type.HALF if half else data_type.FLOAT

    def ICudaEngine_get_tensor_mode(self, cuda_engine: Any, name: str) -> Any:
        mode = sys.modules["tensorrt"].TensorIOMode
        at = list(cuda_engine.state["tensors"]).index(name)
        return mode.INPUT if at < cuda_engine.state["inputs"] else mode.OUTPUT

    def ICudaEngine_create_engine_inspector(self, cuda_engine: Any) -> Any:
        return self.made("EngineInspector", cuda_engine=cuda_engine)

    def EngineInspector_get_engine_information(self, inspector: Any, kind: Any) -> str:
        """In the layout of this version."""
        assert kind.name == "JSON"
        cuda_engine = inspector.state["cuda_engine"]
        precision = cuda_engine.state["precision"]
        layers = []
        for node in onnx.load_from_string(cuda_engine.state["graph"]).graph.node:
            number = {"FP16": "Half", "FP32": "Float"}[precision]
            tensor = {"Name": node.output[0]}
            if self.api.version.startswith("11."):
                tensor |= {"DataType": number, "Format": "Row major linear"}
            else:
                tensor["Format/Datatype"] = f"Row major linear {precision} format"
            layer: dict[str, Any] = {"Name": node.output[0], "Outputs": [tensor]}
            if node.op_type in ("Conv", "Gemm"):
                layer["Weights"] = {"Type": number, "Count": 9}
            layers.append(layer)
        return json.dumps({"Layers": layers})

    def ICudaEngine_create_execution_context(self, cuda_engine: Any) -> Any:
        session = onnxruntime.InferenceSession(
            cuda_engine.state["graph"], providers=["CPUExecutionProvider"]
        )
        return self.made("IExecutionContext", session=session, at={}, cuda=cuda_engine)

    def IExecutionContext_set_tensor_address(
        self, context: Any, name: str, memory: int
    ) -> bool:
        context.state["at"][name] = memory
        return True

    def IExecutionContext_execute_async_v3(self, context: Any, stream: int) -> bool:
        def run() -> None:
            tensors = {node.name: self._tensor(context, node.name) for node in inputs}
            for node, value in zip(outputs, session.run(None, tensors), strict=True):
                self._tensor(context, node.name)[...] = value
            self.launched += 1

        session = context.state["session"]
        inputs, outputs = session.get_inputs(), session.get_outputs()
        self.enqueue(run)
        return True

    def _tensor(self, context: Any, name: str) -> np.ndarray:
        described = context.state["cuda"].state["tensors"][name]
        shape = [dim.dim_value for dim in described.shape.dim]
        kind = np.float16 if described.elem_type == HALF else np.float32
        memory = self.memory[context.state["at"][name]]
        return np.frombuffer(memory, kind, int(np.prod(shape))).reshape(shape)

    def made(self, owner: str, **state: Any) -> Any:
        """An object of a class that only TensorRT itself constructs."""
        kind = getattr(sys.modules["tensorrt"], owner)
        made = kind.__new__(kind)
        object.__setattr__(made, "state", state)
        return made


def _tensorrt(machine: Machine) -> Any:
    module = types.ModuleType("tensorrt")
    module.__version__ = machine.api.version  # type: ignore[attr-defined]
    for name, described in machine.api.classes.items():
        if described is None:
            continue
        if described.members:
            made: Any = enum.IntEnum(name, described.members)  # type: ignore[misc]
        else:
            made = type(name, (_Object,), {"machine": machine, "owner": name})
        setattr(module, name, made)
    for value, name in enumerate(("INTERNAL_ERROR", "ERROR", "WARNING", "INFO")):
        assert name in machine.api["ILogger"].constants
        setattr(module.ILogger, name, value)  # type: ignore[attr-defined]
    return module


class _Object:
    """An object of a TensorRT class: has what the signatures tell, and nothing else."""

    machine: Machine
    owner: str

    def __init__(self, *given: Any) -> None:
        object.__setattr__(self, "state", {})
        self._do("__init__", *given)

    def __getattr__(self, name: str) -> Any:
        described = self.machine.api[self.owner]
        if name in described.calls:
            return lambda *given: self._do(name, *given)
        if name in described.properties:
            return self.state.get(name, 0)
        raise AttributeError(f"{self.owner} of {self.machine.api.version} has no {name}")

    def __setattr__(self, name: str, value: Any) -> None:
        described = self.machine.api[self.owner]
        if type(self).__name__ != self.owner:  # a class of Python, derived from it
            return object.__setattr__(self, name, value)
        if not described.properties.get(name, False):
            raise AttributeError(f"{self.owner}.{name} cannot be set")
        self.state[name] = value

    def _do(self, name: str, *given: Any) -> Any:
        fault = self.machine.api.fault(Use(self.owner, name, len(given)))
        if fault:
            raise TypeError(fault)
        act = getattr(self.machine, f"{self.owner}_{name}", None)
        if act is None and name == "__init__":
            return None
        assert act is not None, f"the fake does not know {self.owner}.{name}"
        return act(self, *given)


def _pycuda_driver(machine: Machine) -> Any:
    class Error(Exception): ...

    class MemoryError(Error): ...

    class Allocation:
        def __init__(self, size: int) -> None:
            if size > machine.free:
                raise MemoryError("cuMemAlloc failed: out of memory")
            self.bytes = ctypes.create_string_buffer(size)
            machine.memory[int(self)] = self.bytes

        def __int__(self) -> int:
            return ctypes.addressof(self.bytes)

    class Stream:
        handle = 7

        def synchronize(self) -> None: ...

    class Event:
        def record(self, stream: Stream) -> None:
            self.at = time.perf_counter()

        def synchronize(self) -> None: ...

        def time_since(self, other: "Event") -> float:
            return (self.at - other.at) * 1e3

    class Device:
        @staticmethod
        def count() -> int:
            return 1

        def __init__(self, index: int) -> None: ...

        def retain_primary_context(self) -> Any:
            return types.SimpleNamespace(push=lambda: None, pop=lambda: None)

        def compute_capability(self) -> tuple[int, int]:
            return 9, 0

        def name(self) -> str:
            return machine.gpu

        def pci_bus_id(self) -> str:
            return "0000:01:00.0"

    def to_gpu(memory: Allocation, array: np.ndarray, stream: Stream) -> None:
        ctypes.memmove(int(memory), array.ctypes.data, array.nbytes)

    def from_gpu(array: np.ndarray, memory: Allocation, stream: Stream) -> None:
        ctypes.memmove(array.ctypes.data, int(memory), array.nbytes)

    module = types.ModuleType("pycuda.driver")
    vars(module).update(
        Error=Error,
        MemoryError=MemoryError,
        Stream=Stream,
        Event=Event,
        Device=Device,
        init=lambda: None,
        mem_alloc=Allocation,
        mem_get_info=lambda: (machine.free, 1 << 30),
        get_driver_version=lambda: 12080,
        pagelocked_empty=np.empty,
        memcpy_htod_async=to_gpu,
        memcpy_dtoh_async=from_gpu,
        memcpy_dtod_async=lambda a, b, size, stream: time.sleep(0.001),
    )
    return module


class _LibCuda:
    """The driver's calls about graphs, with ctypes' arguments."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine

    def cuStreamBeginCapture_v2(self, stream: Any, mode: int) -> int:
        if not self.machine.captures:
            return 801
        self.machine.capturing = []
        return 0

    def cuStreamEndCapture(self, stream: Any, graph: Any) -> int:
        number = len(self.machine.graphs) + 1
        self.machine.graphs[number] = self.machine.capturing or []
        self.machine.capturing = None
        graph._obj.value = number
        return 0

    def cuGraphInstantiateWithFlags(self, made: Any, graph: Any, flags: Any) -> int:
        made._obj.value = graph.value
        return 0

    def cuGraphLaunch(self, graph: Any, stream: Any) -> int:
        for work in self.machine.graphs[graph.value]:
            work()
        return 0

    def cuGraphDestroy(self, graph: Any) -> int:
        return 0

    def cuGraphExecDestroy(self, graph: Any) -> int:
        return 0
