"""Does TensorRT have all that the backend uses? The recorded signatures say it of each
version, and the bindings themselves of one that is installed.

It proves that names exist and calls can be made, not that they do what they should.
"""

import importlib.util
import json
import subprocess
import sys
from functools import lru_cache

import pytest

from tests.runner.tensorrt.signatures import VERSIONS, Api
from tests.runner.tensorrt.uses import optional, source, uses

LOG = """
import tensorrt
from dpcompress.runner.tensorrt.build import log_of
log = log_of(tensorrt)
log.log(tensorrt.ILogger.ERROR, "Error Code 2: no  room.")
log.log(tensorrt.ILogger.WARNING, "never mind")
assert log.errors == ["Error Code 2: no room."] and log.last == "Error Code 2: no room"
"""


def with_tensorrt(*arguments: str) -> str:
    """What a Python that imports the installed TensorRT prints."""
    if importlib.util.find_spec("tensorrt") is None:
        pytest.skip("tensorrt is not installed")
    command = [sys.executable, *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    if "ImportError" in done.stderr or "OSError" in done.stderr:
        pytest.skip(f"tensorrt cannot be imported: {done.stderr.splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    return done.stdout


@lru_cache
def installed() -> Api:
    text = with_tensorrt("-m", "tests.runner.tensorrt.record", "-")
    return Api("installed", json.loads(text))


@pytest.fixture(params=[*VERSIONS, "installed"])
def api(request: pytest.FixtureRequest) -> Api:
    if request.param == "installed":
        return installed()
    return Api.recorded(request.param)


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


@pytest.mark.parametrize("api", VERSIONS, indirect=True)
@pytest.mark.parametrize(("file", "name", "other"), RENAMED)
def test_a_renamed_call_is_found(api: Api, file: str, name: str, other: str) -> None:
    changed = source()
    assert name in changed[file]
    changed[file] = changed[file].replace(name, other)
    assert [fault for use in uses(changed) if (fault := api.fault(use))] != []


def test_what_is_optional_exists_in_some_version() -> None:
    recorded = [Api.recorded(version).classes.values() for version in VERSIONS]
    known = {
        name for classes in recorded for owner in classes if owner for name in owner.names
    }
    names = optional(source())
    assert {"EXPLICIT_BATCH", "STRONGLY_TYPED", "FP16", "CUDNN"} <= names
    assert names - known == set()


def test_a_logger_can_be_made_with_the_real_bindings() -> None:
    """The one object that needs no GPU: a class of Python over a class of C++."""
    with_tensorrt("-c", LOG)
