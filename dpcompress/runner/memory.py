"""What this machine has left. Valid on Python 3.8."""

from __future__ import annotations

from typing import Optional


def available_bytes() -> Optional[int]:
    """Memory that programs may still take, by Linux and by the limit of a container;
    None where neither tells."""
    found = []
    for line in _read("/proc/meminfo").splitlines():
        if line.startswith("MemAvailable:"):
            found.append(1024 * int(line.split()[1]))
    for limit in (
        "/sys/fs/cgroup/memory.max",
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
    ):
        text = _read(limit).strip()
        if text.isdigit():
            found.append(int(text))
    return min(found, default=None)


def _read(path: str) -> str:
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return ""
