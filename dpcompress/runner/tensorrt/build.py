"""Builds a serialized engine from ONNX, on every TensorRT from 8.5 to 11.

Flags are looked up by name: their bits differ from version to version. From TensorRT 10
on, networks are strongly typed, which is all that 11 offers: the ONNX graph decides which
numbers a layer computes in. Before, flags allow fp16 or tf32, and
`precision.check_precision` finds out whether they were used.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, List

from dpcompress.errors import BadInput, EngineUnavailable
from dpcompress.runner.tensorrt.options import Options
from dpcompress.runner.tensorrt.timing_cache import TimingCache

PRECISIONS = ("fp32", "tf32", "fp16")


@lru_cache(maxsize=None)
def log_of(trt: Any) -> Any:
    """The process's only logger: TensorRT sends all messages to the first one made."""

    class Logger(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: List[str] = []

        def log(self, severity: Any, msg: str) -> None:
            if int(severity) <= int(trt.ILogger.ERROR):
                self.errors.append(" ".join(msg.split()))

        @property
        def last(self) -> str:
            """The text of the newest error, without its full stop."""
            text = self.errors[-1] if self.errors else "it does not say why"
            return text.rstrip(". ")

        @property
        def memory_is_short(self) -> bool:
            return any(
                "out of memory" in e.lower() or "OutOfMemory" in e for e in self.errors
            )

    return Logger()


def build(
    trt: Any, onnx: bytes, precision: str, options: Options, timings: TimingCache
) -> bytes:
    """Build `onnx` into a serialized engine.

    Raises:
        BadInput: the parser or the builder rejects the graph (holds its message), or the
            graph is written in other numbers than `precision` asks for.
        EngineUnavailable: the GPU has no such precision.
        MemoryError: the GPU has not enough memory.
    """
    log = log_of(trt)
    del log.errors[:]
    builder = trt.Builder(log)
    if precision == "fp16" and not getattr(builder, "platform_has_fast_fp16", True):
        raise EngineUnavailable("This GPU is not faster in fp16.", "Choose fp32.")
    network = builder.create_network(_creation_flags(trt))
    parser = _parsed(trt, network, onnx)  # owns the weights until the engine is built
    _check_types(trt, network, precision)
    config = _configured(trt, builder, precision, options)
    if options.timing_cache:
        timings.attach(config)
    memory = builder.build_serialized_network(network, config)
    del parser
    if memory is None:
        if log.memory_is_short:
            raise MemoryError
        raise BadInput(
            f"TensorRT {trt.__version__} cannot build the graph: {log.last}.",
            "Give it more workspace_mb or other tactics, or leave this op out.",
        )
    if options.timing_cache:
        timings.keep(config)
    return bytes(memory)


def is_strongly_typed(trt: Any) -> bool:
    """Whether this TensorRT takes the numbers to compute in from the ONNX graph alone."""
    return "STRONGLY_TYPED" in trt.NetworkDefinitionCreationFlag.__members__


def _creation_flags(trt: Any) -> int:
    members = trt.NetworkDefinitionCreationFlag.__members__
    wanted = ("EXPLICIT_BATCH", "STRONGLY_TYPED")
    return sum(1 << int(members[name]) for name in wanted if name in members)


def _parsed(trt: Any, network: Any, onnx: bytes) -> Any:
    log = log_of(trt)
    parser = trt.OnnxParser(network, log)
    if parser.parse(onnx):
        return parser
    told = log.last
    if parser.num_errors:
        fault = parser.get_error(0)
        name = fault.node_name() if hasattr(fault, "node_name") else ""
        told = f"node {fault.node()}{name and ' ' + name}: {fault.desc()}"
    raise BadInput(
        f"TensorRT {trt.__version__} rejects the graph: {told.rstrip('. ')}.",
        "Export the network with another opset or leave this op out.",
    )


def _check_types(trt: Any, network: Any, precision: str) -> None:
    """Refuse a graph that is not written in the numbers that it is to be built in."""
    tensors = [network.get_input(i) for i in range(network.num_inputs)]
    half = any(tensor.dtype == trt.DataType.HALF for tensor in tensors)
    if precision == "fp16" and is_strongly_typed(trt) and not half:
        raise BadInput(
            f"The graph is written in fp32; TensorRT {trt.__version__} takes fp16 from "
            "the graph alone.",
            "Make the bundle or the file with --precision fp16.",
        )
    if precision != "fp16" and half:
        raise BadInput(
            f"The graph is written in fp16, not {precision}.", "Add --precision fp16."
        )


def _configured(trt: Any, builder: Any, precision: str, options: Options) -> Any:
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    workspace = options.workspace_mb << 20
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace)
    config.avg_timing_iterations = options.avg_timing
    if precision == "tf32":
        config.set_flag(trt.BuilderFlag.TF32)
    else:
        config.clear_flag(trt.BuilderFlag.TF32)
    if precision == "fp16" and not is_strongly_typed(trt):
        config.set_flag(trt.BuilderFlag.__members__["FP16"])
    if not options.timing_cache:
        config.set_flag(trt.BuilderFlag.DISABLE_TIMING_CACHE)
    _set_level(trt, config, options)
    _set_tactics(trt, config, options)
    return config


def _set_level(trt: Any, config: Any, options: Options) -> None:
    if options.optimization_level is None:
        return
    if not hasattr(config, "builder_optimization_level"):
        raise EngineUnavailable(
            f"TensorRT {trt.__version__} has no optimization levels.",
            "Leave out optimization_level, or install 8.6 or newer.",
        )
    config.builder_optimization_level = options.optimization_level


def _set_tactics(trt: Any, config: Any, options: Options) -> None:
    sources = options.tactic_sources(trt)
    if sources is None:
        return
    if not config.set_tactic_sources(sources):
        raise EngineUnavailable(
            f"TensorRT {trt.__version__} refuses tactics={options.tactics}.",
            "Choose tactics=default.",
        )
    # 8.5 and 8.6 use cuBLAS and cuDNN in places that the sources do not govern.
    name = "DISABLE_EXTERNAL_TACTIC_SOURCES_FOR_CORE_0805"
    feature = trt.PreviewFeature.__members__.get(name)
    outside = ("CUBLAS", "CUBLAS_LT", "CUDNN")
    members = trt.TacticSource.__members__
    external = sum(1 << int(members[n]) for n in outside if n in members)
    if feature is not None and not sources & external:
        config.set_preview_feature(feature, True)
