"""The backend on a make-believe GPU host: what it does, and what it says when it cannot.

See fake.py for what this can show and what not.
"""

import json
import warnings
from pathlib import Path

import numpy as np
import pytest

from dpcompress.blueprint import ConvSpec
from dpcompress.errors import (
    BadInput,
    DpcompressWarning,
    EngineUnavailable,
    UsageError,
)
from dpcompress.onnxio.precision import to_float16
from dpcompress.onnxio.write import Graph
from dpcompress.runner import Target
from dpcompress.runner.tensorrt.engine import TensorRt
from tests.runner.tensorrt.fake import Machine

pytestmark = pytest.mark.filterwarnings("ignore:GPU clocks")
SHAPE = (3, 6, 6)


def network(batch: int = 2) -> bytes:
    graph = Graph("small", batch)
    conv = ConvSpec(in_channels=3, out_channels=4, kernel=(3, 3))
    tensor = graph.add("Relu", [graph.conv(graph.input(SHAPE), conv)])
    return graph.finish({tensor: (4, 4, 4)})


def opened(precision: str = "fp32", options: str = "", **more: str) -> TensorRt:
    engine = Target(f"tensorrt{options}", precision=precision, **more).open()
    assert isinstance(engine, TensorRt)
    return engine


def images(batch: int = 2) -> np.ndarray:
    return np.random.default_rng(3).standard_normal((batch, *SHAPE), dtype=np.float32)


def wanted() -> np.ndarray:
    session = Target(threads=1).open().load(network())
    return session.infer({"input0": images()})["t4"]


@pytest.mark.parametrize("options", ["", ":cuda_graph=0", ":cuda_graph=1"])
def test_outputs_and_times(machine: Machine, options: str) -> None:
    session = opened(options=options).load(network())
    before = machine.launched
    assert session.run_many(37) > 0
    assert machine.launched - before == 37
    assert session.has_graph == (options != ":cuda_graph=0")
    found = session.infer({"input0": images()})
    assert np.allclose(found["t4"], wanted(), atol=1e-6)
    assert session.layers == {"fp32": 1}
    parts = session.breakdown()
    order = ("min", "median", "p90", "p95", "p99")
    times = [parts[f"compute_{name}_ms"] for name in order]
    assert times == sorted(times) and times[0] > 0
    assert min(parts["enqueue_ms"], parts["h2d_ms"], parts["d2h_ms"]) > 0


def test_fp16_is_made_where_the_version_makes_it(machine: Machine) -> None:
    half = to_float16(network())
    session = opened("fp16").load(half)
    assert session.layers == {"fp16": 1}
    assert np.allclose(session.infer({"input0": images()})["t4"], wanted(), atol=0.02)
    (config,) = machine.configs
    if machine.api.version.startswith("8."):
        assert "FP16" in config.state["flags"]
        assert opened("fp16").load(network()).layers == {"fp16": 1}
    else:
        assert "FP16" not in config.state["flags"]
        with pytest.raises(BadInput, match="written in fp32.*--precision fp16"):
            opened("fp16").load(network())
    with pytest.raises(BadInput, match="written in fp16, not fp32"):
        opened("fp32").load(half)


def test_an_fp16_engine_that_runs_in_fp32_is_an_error(machine: Machine) -> None:
    half = to_float16(network())
    machine.ignores_fp16 = True
    match = "asked for fp16 but built 1 layers in fp32"
    with pytest.raises(EngineUnavailable, match=match):
        opened("fp16").load(half)
    machine.fast_fp16 = False
    if not machine.api.version.startswith("11."):  # which no longer tells
        match = "not faster in fp16"
    with pytest.raises(EngineUnavailable, match=match):
        opened("fp16").load(half)


@pytest.mark.parametrize("precision", ["fp32", "tf32"])
def test_tf32_only_where_it_was_asked_for(machine: Machine, precision: str) -> None:
    opened(precision).load(network())
    assert ("TF32" in machine.configs[0].state["flags"]) == (precision == "tf32")


def test_the_parsers_own_message_with_its_node(machine: Machine) -> None:
    machine.parser_fault = (5, "stem/NonZero", "No importer registered for op: NonZero.")
    with pytest.raises(BadInput, match="node 5.*No importer registered for op: NonZero"):
        opened().load(network())
    if not machine.api.version.startswith("8."):
        with pytest.raises(BadInput, match="stem/NonZero"):
            opened().load(network())


def test_a_build_that_returns_nothing_says_why(machine: Machine) -> None:
    machine.build_fault = "Error Code 10: Could not find any implementation for node c1."
    with pytest.raises(BadInput, match="cannot build.*any implementation for node c1"):
        opened().load(network())


def test_not_enough_memory(machine: Machine) -> None:
    machine.build_fault = "Error Code 2: OutOfMemory (no further information)"
    with pytest.raises(EngineUnavailable, match="not enough memory: .* GB are free"):
        opened().load(network())
    machine.build_fault = None
    engine = opened(options=":cuda_graph=0")
    machine.free = 100
    with pytest.raises(EngineUnavailable, match="not enough memory"):
        engine.load(network())


def test_another_batch_and_free_shapes(machine: Machine) -> None:
    session = opened().load(network())
    with pytest.raises(BadInput, match="takes input0 2x3x6x6, not input0 5x3x6x6"):
        session.infer({"input0": images(5)})
    import onnx

    free = onnx.load_from_string(network())
    free.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "N"
    with pytest.raises(BadInput, match="no fixed shape"):
        opened().load(free.SerializeToString())


@pytest.mark.filterwarnings("ignore:The timing cache")
def test_an_engine_of_another_gpu_or_version(machine: Machine, tmp_path: Path) -> None:
    engine = opened()
    path = tmp_path / "net.engine"
    path.write_bytes(engine.build(network()))
    found = engine.load_file(str(path)).infer({"input0": images()})["t4"]
    assert np.allclose(found, wanted(), atol=1e-6)
    machine.gpu = "Other GPU"
    with pytest.raises(BadInput, match=r"net\.engine cannot be read.*magic tag"):
        opened().load_file(str(path))
    beside = tmp_path / "net.engine.json"
    beside.write_text(json.dumps({"engine": engine.identity}))
    with pytest.raises(BadInput, match="device Imaginary GPU.* not Other GPU"):
        opened().load_file(str(path))
    machine.gpu = "Imaginary GPU"
    with pytest.raises(BadInput, match="built in fp32, not fp16.*--precision fp32"):
        opened("fp16").load_file(str(path))
    beside.write_text("{")  # says nothing: TensorRT itself has to judge
    assert engine.load_file(str(path)).run_many(1) > 0
    with pytest.raises(BadInput, match="cannot be read: No such file"):
        engine.load_file(str(tmp_path / "none.engine"))


def test_a_graph_that_cannot_be_captured_is_launched_layer_by_layer(
    machine: Machine,
) -> None:
    machine.captures = False
    engine = opened()
    session = engine.load(network())
    assert not session.has_graph and session.run_many(3) > 0
    assert engine.notes["without_cuda_graph"] == "1"


def test_tactics_and_levels_go_by_name(machine: Machine) -> None:
    opened(options=":tactics=internal").load(network())
    state = machine.configs[0].state
    assert state["mask"] == (3 if machine.api.version.startswith("11.") else 24)
    assert ("preview" in state) == machine.api.version.startswith("8.")
    with pytest.raises(EngineUnavailable, match="no tactics MAGIC"):
        opened(options=":tactics=MAGIC").load(network())
    levelled = opened(options=":optimization_level=5")
    if machine.api.version.startswith("8.5"):
        with pytest.raises(EngineUnavailable, match="no optimization levels"):
            levelled.load(network())
    else:
        levelled.load(network())
        assert machine.configs[-1].builder_optimization_level == 5


def test_wrong_wishes(machine: Machine) -> None:
    with pytest.raises(EngineUnavailable, match="not int8"):
        opened("int8")
    with pytest.raises(EngineUnavailable, match="no GPU 3: the driver sees 1"):
        opened(device="cuda:3")
    with pytest.raises(EngineUnavailable, match="no device 'tpu'"):
        opened(device="tpu")
    for text, match in (
        (":workspace_mb=lots", "from 1 to"),
        (":timing_cache=maybe", "none of on, off"),
        (":colour=red", "no option 'colour'"),
        (":fast", "not NAME=VALUE"),
    ):
        with pytest.raises(UsageError, match=match):
            opened(options=text)


def test_whatever_a_time_depends_on_is_in_the_identity(machine: Machine) -> None:
    first = opened().identity
    assert first["engine_version"] == machine.api.version
    assert first["device"] == "Imaginary GPU (sm_90)" and first["clocks"] == "unknown"
    others = [
        opened("tf32").identity,
        *(
            opened(options=f":{option}").identity
            for option in (
                "workspace_mb=5",
                "optimization_level=1",
                "tactics=internal",
                "avg_timing=2",
                "timing_cache=off",
                "cuda_graph=0",
            )
        ),
    ]
    assert all(identity != first for identity in others)
    again = Target(others[3]["engine"]).open()  # as a table's header names it
    assert again.identity == others[3]


def test_the_timing_cache_is_kept_and_never_trusted(
    machine: Machine, tmp_path: Path
) -> None:
    path = tmp_path / "timing"
    opened().load(network())
    first = path.read_bytes()
    assert first.endswith(b"a tactic;")
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="The timing cache")
        opened().load(network())
    assert path.read_bytes().endswith(b"a tactic;a tactic;")

    def rebuilt(match: str) -> None:
        with pytest.warns(DpcompressWarning, match=match):
            opened().load(network())
        assert path.read_bytes() == first

    path.write_bytes(first[:-1] + b"?")
    rebuilt("damaged")
    path.write_bytes(b"holiday pictures")
    rebuilt("damaged")
    path.write_bytes(first)
    machine.refuses_caches = True
    rebuilt("refuses it")
    machine.refuses_caches = False
    machine.gpu = "Other GPU"
    with pytest.warns(DpcompressWarning, match="is of .*Imaginary GPU"):
        opened().load(network())
    assert b"Other GPU" in path.read_bytes()
    before = path.read_bytes()
    opened(options=":timing_cache=off").load(network())
    assert path.read_bytes() == before
    assert "DISABLE_TIMING_CACHE" in machine.configs[-1].state["flags"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["timing"]  # no remains


def test_a_timing_cache_that_cannot_be_kept(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("DPCOMPRESS_TIMING_CACHE", str(tmp_path / "file" / "timing"))
    with pytest.warns(DpcompressWarning, match="cannot be read: Not a directory"):
        engine = opened()
    with pytest.raises(BadInput, match="timing cache .* cannot be written"):
        engine.load(network())
