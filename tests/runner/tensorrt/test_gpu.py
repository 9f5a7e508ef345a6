"""The real thing: TensorRT on a GPU, compared with ONNX Runtime on the CPU."""

import warnings
from pathlib import Path

import numpy as np
import pytest

from dpcompress.errors import BadInput, EngineUnavailable
from dpcompress.onnxio.precision import to_float16
from dpcompress.runner import Target
from dpcompress.runner.tensorrt.engine import TensorRt
from tests.runner.tensorrt.test_backend import images, network, wanted

pytestmark = pytest.mark.gpu


@pytest.fixture(params=["fp32", "tf32", "fp16"])
def engine(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> TensorRt:
    monkeypatch.setenv("DPCOMPRESS_TIMING_CACHE", str(tmp_path / "timing"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            made = Target("tensorrt:tactics=internal", precision=request.param).open()
        except EngineUnavailable as error:
            pytest.skip(error.message)
    assert isinstance(made, TensorRt)
    return made


def test_outputs_times_and_the_engine_file(engine: TensorRt, tmp_path: Path) -> None:
    graph = network()
    if engine.precision == "fp16":
        graph = to_float16(graph)
    plan = engine.build(graph)
    session = engine.start(plan)
    allowed = {"fp32": 1e-5, "tf32": 5e-3, "fp16": 1e-2}[engine.precision]
    found = session.infer({"input0": images()})["t4"]
    assert np.abs(found - wanted()).max() <= allowed * np.abs(wanted()).max()
    assert set(session.layers) <= {"fp16" if engine.precision == "fp16" else "fp32"}
    one, many = session.run_many(100), session.run_many(1000)
    assert 3 < many / one < 30
    assert session.has_graph
    parts = session.breakdown()
    assert 0 < parts["compute_min_ms"] <= parts["compute_p99_ms"]
    path = tmp_path / "net.engine"
    path.write_bytes(plan)
    again = engine.load_file(str(path)).infer({"input0": images()})["t4"]
    assert np.array_equal(again, found)
    path.write_bytes(plan[: len(plan) // 2])
    with pytest.raises(BadInput, match="cannot be read by TensorRT"):
        engine.load_file(str(path))


def test_what_tensorrt_rejects(engine: TensorRt) -> None:
    with pytest.raises(BadInput, match="rejects the graph"):
        engine.load(b"no ONNX at all")
