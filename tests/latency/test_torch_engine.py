"""The torch engine runs the same ONNX bytes as ONNX Runtime, and says what it cannot."""

import subprocess
import sys

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from dpcompress.blueprint import Span, candidates
from dpcompress.errors import BadInput, EngineUnavailable
from dpcompress.exporters import export
from dpcompress.latency import bench, profile
from dpcompress.latency.frames import FramedProgram
from dpcompress.latency.torch_engine import check_precision
from dpcompress.models import load_model
from dpcompress.onnxio.write import ACTIVATIONS
from dpcompress.runner import Engine, NetworkTiming, OpTiming, Target
from dpcompress.ways import merge
from tests.latency.blueprints import small_residual
from tests.latency.test_profile import chain, network

TARGET = Target("torch", threads=1)
QUICK = OpTiming(min_samples=5, max_samples=5, max_disturbed=0)
QUICK_NETWORKS = NetworkTiming(
    sample_ms=0.3, min_rounds=5, max_rounds=5, max_disturbed=0, min_seconds=0
)


def same_as_onnx_runtime(data: bytes, engine: Engine, tolerance: float = 1e-4) -> None:
    rng = np.random.default_rng(0)
    inputs = {
        i.name: rng.standard_normal(
            [d.dim_value for d in i.type.tensor_type.shape.dim], dtype=np.float32
        )
        for i in onnx.load_from_string(data).graph.input
    }
    wanted = Target(threads=1).open().load(data).infer(inputs)
    found = engine.load(data).infer(inputs)
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert found[name].shape == value.shape and found[name].dtype == value.dtype
        assert np.abs(found[name] - value).max() <= tolerance * np.abs(value).max()


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Target("torch", threads=1).open()


@pytest.mark.slow
@pytest.mark.parametrize(
    "model",
    ["mobilenet_v3_small", "efficientnet_b0", "squeezenet1_1", "resnet18"],
)
def test_whole_networks(engine: Engine, model: str) -> None:
    torch.manual_seed(0)
    made = load_model(f"torchvision:{model}")
    same_as_onnx_runtime(export(made, (3, 64, 64), 2), engine)


@pytest.mark.parametrize("act", sorted(ACTIVATIONS))
def test_all_ops_in_their_frames(engine: Engine, act: str) -> None:
    blueprint = small_residual(act, 8)
    programs = {
        merge.program(blueprint, merged, True)
        for merged in candidates(blueprint).values()
    }
    assert len(programs) > 5
    chosen = sorted(programs, key=lambda program: program.signature)
    for program in chosen[:: 1 if act == "relu6" else 7]:
        same_as_onnx_runtime(FramedProgram(program, 3).graph(2), engine)


def one_node(operator: str, shape: list[int], *constants: object, **attributes) -> bytes:
    """A graph of one operator; the output's shape is left to whoever runs it."""
    names = [f"c{i}" for i in range(len(constants))]
    node = helper.make_node(operator, ["x", *names], ["y"], name="it", **attributes)
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        [node],
        "one",
        [info("x", TensorProto.FLOAT, shape)],
        [info("y", TensorProto.FLOAT, None)],
        [
            numpy_helper.from_array(np.asarray(value), name)
            for name, value in zip(names, constants, strict=True)
        ],
    )
    opset = helper.make_opsetid("", 17)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=8)
    return bytes(model.SerializeToString())


side = st.integers(0, 2)


@given(
    st.sampled_from(["Conv", "AveragePool", "MaxPool"]),
    st.tuples(side, side, side, side),
    st.tuples(st.integers(1, 3), st.integers(1, 3)),
    st.tuples(st.integers(1, 2), st.integers(1, 2)),
)
def test_windows_with_any_padding(operator, pads, kernel, strides) -> None:
    if operator != "Conv" and any(
        pad >= kernel[i % 2] for i, pad in enumerate(pads)
    ):  # a window of padding alone has no maximum
        return
    constants, attributes = [], {"kernel_shape": kernel, "strides": strides}
    if operator == "Conv":
        rng = np.random.default_rng(0)
        constants = [rng.standard_normal((4, 3, *kernel), dtype=np.float32)]
    if operator == "AveragePool":
        attributes["count_include_pad"] = 1
    data = one_node(operator, [2, 3, 7, 8], *constants, pads=pads, **attributes)
    same_as_onnx_runtime(data, Target("torch", threads=1).open())


def test_shapes_and_means(engine: Engine) -> None:
    whole = np.array([0, -1], dtype=np.int64)
    same_as_onnx_runtime(one_node("Reshape", [2, 3, 4, 5], whole), engine)
    same_as_onnx_runtime(one_node("Transpose", [2, 3, 4], perm=[0, 2, 1]), engine)
    same_as_onnx_runtime(one_node("ReduceMean", [2, 3, 4, 5], axes=[2, 3]), engine)
    weight = np.random.default_rng(0).standard_normal((5, 4), dtype=np.float32)
    same_as_onnx_runtime(one_node("Gemm", [3, 4], weight, transB=1), engine)
    same_as_onnx_runtime(one_node("Gemm", [3, 5], weight), engine)
    ends = np.array([0, 0, 1, 2, 0, 0, 0, 3], dtype=np.int64)
    same_as_onnx_runtime(one_node("Pad", [2, 3, 4, 5], ends), engine)


def test_an_unknown_operator_is_named(engine: Engine) -> None:
    with pytest.raises(BadInput, match=r"LRN \(it\)"):
        engine.load(one_node("LRN", [1, 3, 4, 4], size=3))
    with pytest.raises(BadInput, match="no fixed shape"):
        engine.load(one_node("Relu", [0, 3]))
    with pytest.raises(BadInput, match="rejects"):
        engine.load(b"not a graph")


def test_threads_come_back(engine: Engine) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        session = engine.load(one_node("Relu", [1, 3, 4, 4]))
        assert session.run_many(3) > 0 and torch.get_num_threads() == 2
        assert torch.is_inference_mode_enabled() is False
    finally:
        torch.set_num_threads(before)


def test_profile_and_bench_take_it() -> None:
    blueprint = chain(2, 8)
    original = network(blueprint, 1)
    made = profile(blueprint, original=original, target=TARGET, timing=QUICK)
    spans = set(zip(made.frame["start"], made.frame["stop"], strict=True))
    assert made.header["engine"] == "torch" and spans == {*candidates(blueprint)}
    assert made.header["engine_version"] == torch.__version__
    times = bench({"it": original}, TARGET, timing=QUICK_NETWORKS)
    assert times["it"].median_ms > 0


def test_what_it_cannot_do() -> None:
    for precision in ("bf16", "int3"):
        with pytest.raises(EngineUnavailable, match=precision):
            Target("torch", precision=precision).open()
    if not torch.cuda.is_available():
        with pytest.raises(EngineUnavailable, match="no CUDA device"):
            Target("torch", device="cuda").open()


def test_the_precision_is_measured() -> None:
    check_precision(lambda x, w: torch.nn.functional.conv2d(x, w), "fp32")
    coarse = [(torch.bfloat16, "bf16"), (torch.float16, "fp16")]
    for kind, name in coarse:

        def convolve(x, w, kind=kind):
            return torch.nn.functional.conv2d(x.to(kind), w.to(kind))

        check_precision(convolve, name)
        for other in {"fp32", "fp16", "bf16"} - {name}:
            with pytest.raises(EngineUnavailable, match=f"not compute in {other}"):
                check_precision(convolve, other)


def test_the_runner_alone_has_no_torch() -> None:
    code = """
import sys
sys.modules["torch"] = None
import dpcompress.runner.__main__
from dpcompress.errors import EngineUnavailable
from dpcompress.runner import Target
try:
    Target("torch").open()
except EngineUnavailable as error:
    assert "pip install" in error.remedy
else:
    raise SystemExit("it did not notice")
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("precision", "tolerance"), [("fp32", 1e-4), ("fp16", 2e-2), ("bf16", 1e-1)]
)
def test_on_the_gpu(precision: str, tolerance: float) -> None:
    engine = Target("torch", "cuda", precision).open()
    assert engine.identity["device"].startswith("cuda: ")
    merged = candidates(small_residual())[Span(0, 1)]
    data = FramedProgram(merge.program(small_residual(), merged, True), 3).graph(2)
    same_as_onnx_runtime(data, engine, tolerance)
    session = engine.load(data)
    session.run_many(50)
    assert 0 < session.run_many(10) < session.run_many(1000)
