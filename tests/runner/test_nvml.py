"""Clocks of a GPU, on a make-believe NVML: which clock sequences count as locked."""

import sys
import types

import pytest

from dpcompress.runner.nvml import Clocks


class NVMLError(Exception): ...


def nvml(mhz: list[int], bits: int = 0) -> types.ModuleType:
    """One that answers `mhz`, one after the other, then the last of them for ever."""
    left = list(mhz)

    def clock(gpu: object, kind: int) -> int:
        if left[0] < 0:
            raise NVMLError("Not Supported")
        return left.pop(0) if len(left) > 1 else left[0]

    made = types.ModuleType("pynvml")
    vars(made).update(
        NVML_CLOCK_SM=1,
        NVMLError=NVMLError,
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByPciBusId=lambda bus: bus.decode(),
        nvmlDeviceGetMaxClockInfo=lambda gpu, kind: 1980,
        nvmlDeviceGetClockInfo=clock,
        nvmlDeviceGetCurrentClocksThrottleReasons=lambda gpu: bits,
    )
    return made


@pytest.mark.parametrize(
    ("mhz", "lock", "seen"),
    [
        ([1410], "locked at 1410 MHz", "1410"),
        ([345, 1200, 1980], "not locked", "345 to 1980"),
        ([1980], "not locked", "1980"),  # where a free GPU goes
        ([1500, 1500, 1450], "not locked", "1450 to 1500"),
        ([-1], "unknown", "unknown"),
    ],
)
def test_locked_or_not(
    monkeypatch: pytest.MonkeyPatch, mhz: list[int], lock: str, seen: str
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", nvml(mhz))
    clocks = Clocks("0000:01:00.0")
    assert clocks.lock(iter([None] * 3)) == lock
    assert clocks.notes["sm_clock_mhz"] == seen


def test_what_holds_the_clocks_back_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", nvml([1410], bits=0x1 | 0x4 | 0x20))
    clocks = Clocks("0000:01:00.0")
    assert clocks.notes["throttling"] == "power cap, thermal slowdown"
    monkeypatch.setitem(sys.modules, "pynvml", nvml([1410], bits=0x1))
    assert Clocks("0000:01:00.0").notes["throttling"] == "none"


def test_without_nvml_nothing_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    clocks = Clocks("0000:01:00.0")
    clocks.look()
    assert clocks.lock(iter([])) == "unknown" and "not installed" in clocks.why
    assert clocks.notes == {"sm_clock_mhz": "unknown"}
