"""OpenVINO and TensorRT files: written only if their engine gives torch's outputs."""

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import openvino
import pytest
import torch
from torch import nn

from dpcompress.errors import BadInput, UsageError, VerificationFailed
from dpcompress.exporters import export, export_openvino, export_tensorrt
from dpcompress.exporters.tensorrt import sidecar
from dpcompress.latency import bench
from dpcompress.runner import NetworkTiming, Target
from dpcompress.runner.openvino import OpenVino
from tests.runner.tensorrt.conftest import host

SHAPE, BATCH = (3, 8, 8), 4
QUICK = NetworkTiming(
    sample_ms=0.3, min_rounds=5, max_rounds=5, max_disturbed=0, min_seconds=0
)
HINT = "INFERENCE_PRECISION_HINT"
EXACT = {HINT: "f32"}


def small(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        *(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU6()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)),
    ).eval()


@pytest.fixture(scope="module")
def graph() -> bytes:
    return export(small(), SHAPE, BATCH)


@pytest.fixture
def core() -> openvino.Core:
    """OpenVINO with the default that it has on processors with bf16 units."""
    core = openvino.Core()
    core.set_property("CPU", {HINT: "bf16"})
    return core


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.randn(6, *SHAPE, generator=torch.Generator().manual_seed(1))


def test_one_graph_three_readers(
    graph: bytes, images: torch.Tensor, core: openvino.Core
) -> None:
    """The ONNX checker, ONNX Runtime and OpenVINO, against torch."""
    onnx.checker.check_model(graph, full_check=True)
    wanted = small()(images[:BATCH]).detach().numpy()
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    value = images[:BATCH].numpy()
    (first,) = session.run(None, {"input": value})
    compiled = core.compile_model(core.read_model(graph), "CPU", EXACT)
    second = compiled({"input": value})[0]
    scale = np.abs(wanted).max()
    assert np.abs(first - wanted).max() < 1e-5 * scale
    assert np.abs(second - wanted).max() < 1e-5 * scale


def test_fp32_is_computed_in_f32_where_bf16_is_the_default(
    graph: bytes, images: torch.Tensor, core: openvino.Core
) -> None:
    engine = OpenVino(threads=1, precision="fp32", device="cpu")
    engine._core = core
    session = engine.load(graph)
    assert session._compiled.get_property(HINT) == openvino.Type.f32
    (found,) = session.infer({"input": images[:BATCH].numpy()}).values()
    wanted = small()(images[:BATCH]).detach().numpy()
    exact = np.abs(found - wanted).max() / np.abs(wanted).max()
    assert exact < 1e-6
    by_default = core.compile_model(core.read_model(graph), "CPU")
    if by_default.get_property(HINT) == openvino.Type.bf16:  # it can, with AVX-512
        other = by_default({"input": images[:BATCH]})[0]
        assert np.abs(other - wanted).max() / np.abs(wanted).max() > 1e-4


def test_openvino_files_give_torchs_outputs(
    graph: bytes, images: torch.Tensor, tmp_path: Path, core: openvino.Core
) -> None:
    engine, path = Target("openvino", threads=1).open(), tmp_path / "net.xml"
    made = {"engine": engine, "batch": BATCH, "images": images}
    check = export_openvino(graph, path, module=small(), **made)
    assert check.images == 6 and check.max_error <= check.tolerance
    assert {p.name for p in tmp_path.iterdir()} == {"net.xml", "net.bin"}
    model = core.read_model(path)  # by OpenVINO alone
    found = core.compile_model(model, "CPU", EXACT)({"input": images[:BATCH]})[0]
    wanted = small()(images[:BATCH]).detach().numpy()
    assert np.allclose(found, wanted, atol=check.tolerance)
    times = bench(
        {"onnx": graph, "ir": path}, Target("openvino", threads=1), timing=QUICK
    )
    assert times["ir"].median_ms > 0
    before = path.read_bytes()
    with pytest.raises(VerificationFailed, match="differs from torch"):
        export_openvino(graph, path, module=small(seed=1), **made)
    assert path.read_bytes() == before
    with pytest.raises(UsageError, match=r"end with \.xml"):
        export_openvino(graph, tmp_path / "net.onnx", module=small(), **made)
    path.with_suffix(".bin").write_bytes(b"")
    with pytest.raises(BadInput, match="OpenVINO rejects"):
        engine.load_file(str(path))


@pytest.mark.filterwarnings("ignore:GPU clocks", "ignore:The timing cache")
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_an_engine_file_and_what_is_told_about_it(
    precision: str,
    graph: bytes,
    images: torch.Tensor,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On the make-believe host of tests/runner/tensorrt/fake.py."""
    monkeypatch.setenv("DPCOMPRESS_TIMING_CACHE", str(tmp_path / "timing"))
    machine = host("11.4.0.106", monkeypatch)
    target = Target("tensorrt", precision=precision)
    engine = target.open()
    path = tmp_path / "net.engine"
    made = {"engine": engine, "batch": BATCH, "images": images}
    check, times = export_tensorrt(graph, path, module=small(), **made)
    assert 0 < check.max_error <= check.tolerance
    about = json.loads(sidecar(path).read_text())
    assert about["engine"] == engine.identity
    assert about["inputs"] == {"input": [BATCH, *SHAPE]}
    assert about["layers"] == {precision: 2} and about["check"]["images"] == 6
    assert about["latency"] == times and times["compute_median_ms"] > 0
    parts: dict[str, dict[str, float]] = {}
    bench(
        {"file": path, "onnx": graph},
        target,
        timing=QUICK,
        breakdowns=parts,
    )
    assert parts["file"].keys() == parts["onnx"].keys() == times.keys()
    before = path.read_bytes()
    with pytest.raises(VerificationFailed):
        export_tensorrt(graph, path, module=small(seed=1), **made)
    assert path.read_bytes() == before
    machine.gpu = "Other GPU"
    with pytest.raises(BadInput, match="built for another machine: device Imaginary"):
        bench({"file": path}, target)


def test_a_file_of_another_engine_is_told() -> None:
    from dpcompress.cli.bench import _read

    with pytest.raises(UsageError, match="is a file of tensorrt.*--engine tensorrt"):
        _read("net.engine", None, Target("onnxruntime"))
    target = Target("tensorrt:cuda_graph=0")
    assert _read("net.plan", None, target) == Path("net.plan")
