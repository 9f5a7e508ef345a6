"""Without the extra, the driver or a GPU: what is missing, and how to get it."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from dpcompress.errors import EngineUnavailable
from dpcompress.runner import Target
from dpcompress.runner.tensorrt import libraries

DRIVER = """
#include <stdlib.h>
int cuInit(unsigned flags) { return atoi(getenv("CU_INIT")); }
int cuDeviceGetCount(int *count) { *count = atoi(getenv("CU_COUNT")); return 0; }
"""
NEEDS_NO_GPU = pytest.mark.skipif(
    libraries._driver()[0] is not None, reason="there is a GPU here"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Packages that only exist, and a driver that answers what it is told to."""
    folder = tmp_path_factory.mktemp("host")
    for name in ("tensorrt", "pycuda"):
        (folder / "packages" / name).mkdir(parents=True)
        (folder / "packages" / name / "__init__.py").touch()
    (folder / "driver").mkdir()
    (folder / "cuda.c").write_text(DRIVER)
    made = folder / "driver" / "libcuda.so.1"
    command = ["gcc", "-shared", "-fPIC", "-o", str(made), str(folder / "cuda.c")]
    try:
        subprocess.run(command, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no C compiler: {error}")
    return folder


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments]
    known = {**os.environ, "COLUMNS": "400", **environment}
    return subprocess.run(command, capture_output=True, text=True, env=known)


def opening(**environment: str) -> str:
    code = "from dpcompress.runner import Target; Target('tensorrt').open()"
    done = run("-c", code, **environment)
    return done.stderr.strip().splitlines()[-1]


@NEEDS_NO_GPU
def test_all_that_is_missing_is_told_at_once() -> None:
    with pytest.raises(EngineUnavailable) as caught:
        Target("tensorrt").open()
    assert "no NVIDIA driver (libcuda.so.1)" in caught.value.message
    assert "install NVIDIA's driver" in caught.value.remedy
    if libraries._is_installed("tensorrt"):
        return
    assert "tensorrt" in caught.value.message.partition("not installed")[0]
    assert "pip install 'dpcompress[tensorrt]'" in caught.value.remedy


@NEEDS_NO_GPU
@pytest.mark.slow
@pytest.mark.parametrize(
    "verb",
    [
        ("bench", "torchvision:resnet18"),
        ("profile", "torchvision:resnet18", "-o", "none.csv"),
        ("export", "torchvision:resnet18", "--to", "tensorrt", "-o", "none.engine"),
        ("compress", "torchvision:resnet18", "--data", "digits", "--budget", "70%"),
    ],
)
def test_every_verb_ends_with_5(verb: tuple[str, ...], tmp_path: Path) -> None:
    more = ("-o", str(tmp_path / "run")) if verb[0] == "compress" else ()
    done = run("-m", "dpcompress", *verb, *more, "--engine", "tensorrt")
    assert done.returncode == 5, done.stderr
    assert "libcuda.so.1" in done.stderr and "Traceback" not in done.stderr


@NEEDS_NO_GPU
@pytest.mark.slow
def test_doctor_tells_it_too() -> None:
    done = run("-m", "dpcompress", "doctor", "--json")
    findings = json.loads(done.stdout)["findings"]
    (found,) = (f for f in findings if f["what"] == "tensorrt")
    assert done.returncode == 0 and not found["works"]
    assert "NVIDIA driver" in found["found"] and found["remedy"]


@NEEDS_NO_GPU
@pytest.mark.parametrize(
    ("code", "count", "match"),
    [
        ("0", "0", "the NVIDIA driver sees no GPU.*CUDA_VISIBLE_DEVICES"),
        ("100", "0", "the NVIDIA driver sees no GPU"),
        ("999", "0", "the NVIDIA driver does not start .CUDA error 999.*nvidia-smi"),
        ("0", "1", "pycuda is installed but cannot be imported: No module named"),
    ],
)
def test_a_driver_without_a_gpu(folder: Path, code: str, count: str, match: str) -> None:
    told = opening(
        CU_INIT=code,
        CU_COUNT=count,
        LD_LIBRARY_PATH=str(folder / "driver"),
        PYTHONPATH=os.pathsep.join([str(folder / "packages"), os.getcwd()]),
    )

    assert re.search(match, told), told


@NEEDS_NO_GPU
def test_a_tensorrt_that_cannot_be_imported(folder: Path, tmp_path: Path) -> None:
    broken = tmp_path / "tensorrt"
    broken.mkdir()
    (broken / "__init__.py").write_text("raise OSError('libnvinfer.so.10: not there')")
    places = [str(tmp_path), str(folder / "packages"), os.getcwd()]
    told = opening(
        CU_INIT="0",
        CU_COUNT="1",
        LD_LIBRARY_PATH=str(folder / "driver"),
        PYTHONPATH=os.pathsep.join(places),
    )
    assert "tensorrt is installed but cannot be imported: libnvinfer.so.10" in told
