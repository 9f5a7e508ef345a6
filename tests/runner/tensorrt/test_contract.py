"""Does TensorRT have all that the backend uses? Of 8.5.3.1 the recorded signatures say,
of 10.16 and 11.4 the real bindings, loaded over empty libraries.

It proves that names exist and calls can be made, not that they do what they should.
"""

import re
import subprocess
import sys
from functools import lru_cache
from pathlib import Path

import pytest

from tests.runner.tensorrt.signatures import VERSIONS, Api, signature_file
from tests.runner.tensorrt.uses import optional, source, uses

REAL = VERSIONS[1:]
STUBS = """
import sys
sys.path.insert(0, {tools!r})
import bindings_with_stubs
try:
    bindings_with_stubs.prepare({version!r}, {folder!r})
except bindings_with_stubs.Unavailable as error:
    sys.exit(f"unavailable: {{error}}")
sys.path.insert(0, {folder!r})
import introspect, tensorrt
introspect.EXTRA.append("ParserError")
sys.stdout.write(introspect.report(tensorrt))
"""


@lru_cache
def real_api(tools: Path, folder: Path, version: str) -> Api:
    code = STUBS.format(tools=str(tools), version=version, folder=str(folder))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    if "unavailable: " in done.stderr:
        pytest.skip(done.stderr.strip().splitlines()[-1])
    assert done.returncode == 0, done.stderr
    return Api(done.stdout)


@pytest.fixture(scope="module", params=VERSIONS)
def api(
    request: pytest.FixtureRequest, shared: Path, tmp_path_factory: pytest.TempPathFactory
) -> Api:
    recorded = signature_file(shared, request.param)
    if not recorded.exists():
        pytest.skip(f"no recorded signatures of TensorRT {request.param}")
    if request.param not in REAL:
        return Api(recorded.read_text())
    folder = tmp_path_factory.mktemp(request.param)
    return real_api(recorded.parent, folder, request.param)


def test_this_version_has_all_that_the_backend_uses(api: Api) -> None:
    found = uses(source())
    assert {use.owner for use in found} > {"Builder", "OnnxParser", "IExecutionContext"}
    assert len(found) > 40
    assert [fault for use in found if (fault := api.fault(use))] == []


RENAMED = [
    ("build.py", "builder.build_serialized_network(", "builder.build_network("),
    ("build.py", "trt.BuilderFlag.TF32", "trt.BuilderFlag.TF23"),
    ("build.py", "config.avg_timing_iterations =", "config.avg_timings ="),
    ("build.py", "trt.OnnxParser(network, log)", "trt.OnnxParser(network)"),
    (
        "timing_cache.py",
        "config.set_timing_cache(cache, False)",
        "config.set_cache(cache)",
    ),
    ("session.py", "_context.execute_async_v3(", "_context.execute_async_v4("),
    ("session.py", "TensorIOMode.INPUT", "TensorIOMode.OUT"),
    ("session.py", "cuda_engine.num_io_tensors", "cuda_engine.num_bindings_"),
    ("engine.py", "trt.LayerInformationFormat.JSON", "trt.LayerInformation.JSON"),
]


@pytest.mark.parametrize(("file", "name", "other"), RENAMED)
def test_a_renamed_call_is_found(api: Api, file: str, name: str, other: str) -> None:
    changed = source()
    assert name in changed[file]
    changed[file] = changed[file].replace(name, other)
    assert [fault for use in uses(changed) if (fault := api.fault(use))] != []


def test_what_is_optional_exists_in_some_version(shared: Path) -> None:
    text = ""
    for version in VERSIONS:
        recorded = signature_file(shared, version)
        if not recorded.exists():
            pytest.skip(f"no recorded signatures of TensorRT {version}")
        text += recorded.read_text()
    known = set(re.findall(r"^  (\w+)\b", text, re.MULTILINE)) | {"node_name"}
    names = optional(source())
    assert {"EXPLICIT_BATCH", "STRONGLY_TYPED", "FP16", "CUDNN"} <= names
    assert names - known == set()


def test_a_logger_can_be_made_with_the_real_bindings(
    shared: Path, tmp_path: Path
) -> None:
    """The one object that needs no GPU: a class of Python over a class of C++."""
    code = f"""
import sys
sys.path.insert(0, {str(shared / "gpu" / "tensorrt_api")!r})
import bindings_with_stubs as stubs
try:
    sys.path.insert(0, stubs.prepare("11.4.0.106", {str(tmp_path)!r}))
except stubs.Unavailable as error:
    sys.exit(f"unavailable: {{error}}")
import tensorrt
from dpcompress.runner.tensorrt.build import log_of
log = log_of(tensorrt)
log.log(tensorrt.ILogger.ERROR, "Error Code 2: no  room.")
log.log(tensorrt.ILogger.WARNING, "never mind")
assert log.errors == ["Error Code 2: no room."] and log.last == "Error Code 2: no room"
"""
    if not (shared / "gpu" / "tensorrt_api").is_dir():
        pytest.skip("no tools for TensorRT's bindings in the shared data")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    if "unavailable: " in done.stderr:
        pytest.skip(done.stderr.strip().splitlines()[-1])
    assert done.returncode == 0, done.stderr
