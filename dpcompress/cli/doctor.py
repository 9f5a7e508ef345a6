"""``dpcompress doctor``: what works on this machine, and how to get the rest."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from dpcompress.cli.files import Json
from dpcompress.cli.output import emit, print_table
from dpcompress.errors import DpcompressError, EngineUnavailable
from dpcompress.version import __version__

_OPTIONAL = {
    "timm": "models named timm:NAME",
    "ray": "scoring on a cluster",
}
# Low-precision units: a processor has one if it has any of its flags.
_UNITS = {
    "bf16": {"avx512_bf16", "amx_bf16"},
    "VNNI": {"avx512_vnni", "avx_vnni"},
    "AMX": {"amx_tile", "amx_bf16", "amx_int8"},
}
_CPUINFO = Path("/proc/cpuinfo")


@dataclass(frozen=True)
class Finding:
    """A thing that was looked for; `remedy` is the command that would bring it."""

    what: str
    works: bool
    found: str
    remedy: str = ""


def doctor(json: Json = False) -> None:
    """Show what works on this machine, and how to get the rest.

    Exits with 5 if no inference engine works.

    \b
    Example:
      dpcompress doctor
    """
    engines, units = _engines(), processor_units()
    findings = [*_machine(units), _torch(), *engines, *_optional(), _writable()]
    works = any(engine.works for engine in engines)
    if json:
        told = [asdict(finding) for finding in findings]
        emit({"works": works, "units": units, "findings": told})
    else:
        print_table(
            ("", "works", "found", "to get it"),
            [(f.what, f.works, f.found, f.remedy) for f in findings],
        )
    if not works:
        raise EngineUnavailable(
            "No inference engine works here.", "Run: pip install onnxruntime"
        )


def processor_units() -> dict[str, bool] | None:
    """Tell which low-precision units an x86 processor has, by Linux's flags.

    Engines may compute in bf16 where there are bf16 units; dpcompress tells them not to.

    Returns:
        Whether it has bf16, VNNI and AMX; None where the system does not say.
    """
    try:
        lines = _CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    for line in lines:
        if line.startswith("flags"):
            flags = set(line.partition(":")[2].split())
            return {name: bool(names & flags) for name, names in _UNITS.items()}
    return None


def _machine(units: dict[str, bool] | None) -> list[Finding]:
    from dpcompress.runner.machine import cores, cpu_model

    told = [
        f"{name}: {'yes' if there else 'no'}" for name, there in (units or {}).items()
    ]
    return [
        Finding("dpcompress", True, __version__),
        Finding("python", True, platform.python_version()),
        Finding("processor", True, f"{cores()} cores, {cpu_model()}"),
        Finding("processor's units", True, ", ".join(told) or "unknown"),
    ]


def _torch() -> Finding:
    try:
        import torch
    except ImportError as error:
        return Finding("torch", False, str(error), "pip install torch torchvision")
    devices = [torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())]
    found = f"{torch.__version__}, devices: {', '.join(['cpu', *devices])}"
    return Finding("torch", True, found)


def _engines() -> list[Finding]:
    from dpcompress.runner import ENGINES, Target

    findings = []
    for name in ENGINES:
        try:
            version = Target(name).open().identity["engine_version"]
        except DpcompressError as error:
            findings.append(Finding(name, False, error.message, error.remedy))
        else:
            findings.append(Finding(name, True, version))
    return findings


def _optional() -> list[Finding]:
    findings = []
    for name, purpose in _OPTIONAL.items():
        if importlib.util.find_spec(name) is None:
            remedy = f"pip install 'dpcompress[{name}]'"
            findings.append(Finding(name, False, f"for {purpose}", remedy))
        else:
            findings.append(Finding(name, True, importlib.metadata.version(name)))
    return findings


def _writable() -> Finding:
    from dpcompress.runner.cache import cache_folder

    folder = Path(cache_folder())
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        remedy = "export DPCOMPRESS_STORE=A_FILE_THAT_YOU_MAY_WRITE"
        return Finding("cache", False, f"{folder}: {error.strerror}", remedy)
    return Finding("cache", True, str(folder))
