import subprocess
import sys
from unittest.mock import MagicMock

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from dpcompress.errors import BadInput, EngineUnavailable, UsageError
from dpcompress.runner import ENGINES, Engine, Target

WEIGHT = np.random.default_rng(0).standard_normal((5, 3, 1, 1)).astype(np.float32)


def pointwise(batch: int | str) -> bytes:
    """y = relu(W x), as a 1×1 convolution."""
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "w"], ["c"]),
            helper.make_node("Relu", ["c"], ["y"]),
        ],
        "pointwise",
        [info("x", TensorProto.FLOAT, [batch, 3, 6, 7])],
        [info("y", TensorProto.FLOAT, [batch, 5, 6, 7])],
        [numpy_helper.from_array(WEIGHT, "w")],
    )
    opset = helper.make_opsetid("", 17)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=8)
    onnx.checker.check_model(model)
    return model.SerializeToString()


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> Engine:
    if request.param != "tensorrt":
        pytest.importorskip(request.param)
    try:
        return Target(request.param, threads=1).open()
    except EngineUnavailable as error:
        pytest.skip(str(error))


def test_infers_what_numpy_computes(engine: Engine) -> None:
    session = engine.load(pointwise(2))
    x = np.random.default_rng(1).standard_normal((2, 3, 6, 7)).astype(np.float32)
    (y,) = session.infer({"x": x}).values()
    wanted = np.maximum(np.einsum("oi,nihw->nohw", WEIGHT[:, :, 0, 0], x), 0)
    np.testing.assert_allclose(y, wanted, rtol=1e-5, atol=1e-5)


def test_many_inferences_take_longer_than_one(engine: Engine) -> None:
    session = engine.load(pointwise(2))
    session.run_many(50)
    assert 0 < min(session.run_many(1) for _ in range(9)) < session.run_many(500)


def test_identity_says_what_a_time_depends_on(engine: Engine) -> None:
    identity = engine.identity
    assert {"engine", "engine_version", "device", "precision", "threads"} <= set(identity)
    assert all(isinstance(value, str) and value for value in identity.values())
    assert identity["threads"] == "1"


def test_a_device_that_is_lost_is_said(engine: Engine) -> None:
    session = engine.load(pointwise(2))
    inner = {"onnxruntime": "_session", "openvino": "_request", "torch": "_network"}
    if engine.name not in inner:
        pytest.skip("no way to lose it on purpose")
    lost = MagicMock(side_effect=RuntimeError("device lost\nat line 3"))
    lost.run_with_iobinding = lost.start_async = lost.run = lost
    setattr(session, inner[engine.name], lost)
    with pytest.raises(EngineUnavailable, match="stopped working: device lost[.] Check"):
        session.run_many(1)


def test_rejects_garbage_and_open_shapes(engine: Engine) -> None:
    with pytest.raises(BadInput, match="rejects"):
        engine.load(b"not a graph")
    with pytest.raises(BadInput, match="no fixed shape"):
        engine.load(pointwise("n"))


def test_wrong_wishes() -> None:
    with pytest.raises(UsageError, match="onnxruntime"):
        Target("abacus")
    with pytest.raises(UsageError, match="0 threads"):
        Target(threads=0)
    with pytest.raises(UsageError, match="batch of 0"):
        Target(batch=0)
    with pytest.raises(UsageError, match="no option 'speed'"):
        Target("onnxruntime:speed=11").open()
    with pytest.raises(EngineUnavailable, match="int3"):
        Target(precision="int3").open()


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_a_missing_engine_says_what_to_install(name: str) -> None:
    code = f"""
import sys
sys.modules[{name!r}] = None
from dpcompress.errors import EngineUnavailable
from dpcompress.runner import Target
try:
    Target({name!r}).open()
except EngineUnavailable as error:
    assert "pip install" in error.remedy
else:
    raise SystemExit("it did not notice")
"""
    subprocess.run([sys.executable, "-c", code], check=True)
