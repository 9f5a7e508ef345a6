"""The clocks of an NVIDIA GPU, and what holds them back, read through NVML.

Needs nvidia-ml-py (`pynvml`); without it, and on boards without NVML, all is "unknown".
"""

from __future__ import annotations

import time
from typing import Any, Dict, Iterable, List, Set

UNKNOWN = "unknown"
NOT_LOCKED = "not locked"

# Bits of NVML's clocks event reasons, without those for being idle or set by the user.
_HELD_BACK = {
    0x4: "power cap",
    0x8: "hardware slowdown",
    0x20: "thermal slowdown",
    0x40: "thermal slowdown by hardware",
    0x80: "power brake",
}


class Clocks:
    """Watches the clock of the streaming multiprocessors of one GPU.

    seen_mhz: the clock at each look.
    held_back: what slowed the clock down at any look.
    why: why nothing is known, if so.

    Args:
        bus_id: the GPU's PCI bus id.
    """

    EVERY = 1.0  # seconds between two looks, at least

    def __init__(self, bus_id: str) -> None:
        self._nvml: Any = None
        self._looked = 0.0
        self.seen_mhz: List[int] = []
        self.held_back: Set[str] = set()
        try:
            import pynvml

            pynvml.nvmlInit()
            self._gpu = pynvml.nvmlDeviceGetHandleByPciBusId(bus_id.encode())
            kind = pynvml.NVML_CLOCK_SM
            self.max_mhz = int(pynvml.nvmlDeviceGetMaxClockInfo(self._gpu, kind))
            self._nvml = pynvml
            self.look()
        except ImportError:
            self.why = "nvidia-ml-py is not installed"
        except Exception as error:  # pynvml.NVMLError, a class of its own per code
            self._nvml = None
            self.why = str(error)

    def look(self) -> None:
        """Note the clock as it is now, unless the last look was less than `EVERY` ago."""
        now = time.monotonic()
        if self._nvml is None or now - self._looked < self.EVERY:
            return
        self._looked = now
        self._note()

    def _note(self) -> None:
        nvml = self._nvml
        reasons = getattr(
            nvml,
            "nvmlDeviceGetCurrentClocksEventReasons",
            nvml.nvmlDeviceGetCurrentClocksThrottleReasons,
        )
        try:
            mhz = nvml.nvmlDeviceGetClockInfo(self._gpu, nvml.NVML_CLOCK_SM)
            bits = int(reasons(self._gpu))
        except nvml.NVMLError:  # not every GPU tells
            return
        self.seen_mhz.append(int(mhz))
        self.held_back |= {name for bit, name in _HELD_BACK.items() if bits & bit}

    def lock(self, busy: Iterable[None]) -> str:
        """Judge whether clocks are locked: "locked at N MHz", NOT_LOCKED or UNKNOWN.

        NVML does not say. Clocks count as locked if they stay within 1 %, idle and at
        work, and below the GPU's highest clock, which is where a free GPU goes.

        Args:
            busy: keeps the GPU at work while it is iterated over.
        """
        if self._nvml is None:
            return UNKNOWN
        for _ in busy:
            self._note()
        if not self.seen_mhz:
            return UNKNOWN
        low, high = min(self.seen_mhz), max(self.seen_mhz)
        if high - low > 0.01 * high or high >= self.max_mhz:
            return NOT_LOCKED
        return f"locked at {high} MHz"

    @property
    def notes(self) -> Dict[str, str]:
        """The clocks seen so far and what held them back, for a table's header."""
        if not self.seen_mhz:
            return {"sm_clock_mhz": UNKNOWN}
        low, high = min(self.seen_mhz), max(self.seen_mhz)
        return {
            "sm_clock_mhz": str(low) if low == high else f"{low} to {high}",
            "throttling": ", ".join(sorted(self.held_back)) or "none",
        }
