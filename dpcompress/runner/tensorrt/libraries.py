"""The only file that imports tensorrt and pycuda; says what is missing."""

from __future__ import annotations

import ctypes
import importlib.util
import os
from typing import Any, List, NamedTuple, Tuple

from dpcompress.errors import EngineUnavailable, first_line

EXTRA = "pip install 'dpcompress[tensorrt]' (in the runner alone: tensorrt pycuda)"


class Libraries(NamedTuple):
    """The libraries that TensorRT needs to run.

    trt: the module tensorrt.
    cuda: the module pycuda.driver.
    driver: the CUDA driver's library, loaded by ctypes for what pycuda lacks.
    """

    trt: Any
    cuda: Any
    driver: Any


def open_libraries() -> Libraries:
    """Load TensorRT, pycuda and the driver, and check that there is a GPU.

    Raises:
        EngineUnavailable: names everything that is missing, and how to get it.
    """
    faults, remedies = [], []
    absent = [n for n in ("tensorrt", "pycuda") if not _is_installed(n)]
    if absent:
        verb = "is" if len(absent) == 1 else "are"
        faults.append(f"{' and '.join(absent)} {verb} not installed")
        remedies.append(f"run: {EXTRA}")
    driver, fault, remedy = _driver()
    if fault:
        faults.append(fault)
        remedies.append(remedy)
    if faults:
        raise _unavailable(faults, remedies)
    try:
        import tensorrt
    except Exception as error:  # the wheels load libraries, and raise what they like
        raise _broken("tensorrt", error) from error
    try:
        import pycuda.driver
    except Exception as error:
        raise _broken("pycuda", error) from error
    return Libraries(tensorrt, pycuda.driver, driver)


def _is_installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ValueError:  # a module without a spec, as in sys.modules[name] = None
        return False


def _driver() -> Tuple[Any, str, str]:
    """Load the driver; returns it, what is wrong with it, and what helps."""
    name = "nvcuda.dll" if os.name == "nt" else "libcuda.so.1"
    try:
        driver = ctypes.CDLL(name)
    except OSError:
        return None, f"there is no NVIDIA driver ({name})", "install NVIDIA's driver"
    code = driver.cuInit(0)
    count = ctypes.c_int(0)
    if code == 0:
        code = driver.cuDeviceGetCount(ctypes.byref(count))
    if code not in (0, 100):  # 100: CUDA_ERROR_NO_DEVICE
        fault = f"the NVIDIA driver does not start (CUDA error {code})"
        return None, fault, "check it with: nvidia-smi"
    if count.value < 1:
        fault = "the NVIDIA driver sees no GPU"
        return None, fault, "check it with: nvidia-smi, and CUDA_VISIBLE_DEVICES"
    return driver, "", ""


def _unavailable(faults: List[str], remedies: List[str]) -> EngineUnavailable:
    remedy = "; then ".join(remedies)
    return EngineUnavailable(
        f"TensorRT cannot run here: {', and '.join(faults)}.",
        f"{remedy[0].upper()}{remedy[1:]}.",
    )


def _broken(name: str, error: Exception) -> EngineUnavailable:
    return EngineUnavailable(
        f"{name} is installed but cannot be imported: {first_line(error)}.",
        f"Install the {name} that fits this Python, driver and CUDA.",
    )
