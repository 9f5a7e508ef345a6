"""What ``dpcompress doctor`` says of the processor."""

from pathlib import Path

import pytest

from dpcompress.cli import doctor


@pytest.mark.parametrize(
    ("flags", "bf16", "vnni", "amx"),
    [
        ("fpu avx2 fma", False, False, False),
        ("fpu avx512f avx512_vnni", False, True, False),
        ("fpu avx2 avx_vnni", False, True, False),
        ("fpu avx512_vnni avx512_bf16", True, True, False),
        ("fpu avx512_vnni avx512_bf16 amx_tile amx_bf16 amx_int8", True, True, True),
    ],
)
def test_units_are_read_from_linuxs_flags(
    flags: str,
    bf16: bool,
    vnni: bool,
    amx: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"processor\t: 0\nmodel name\t: Any\nflags\t\t: {flags}\n")
    monkeypatch.setattr(doctor, "_CPUINFO", cpuinfo)
    assert doctor.processor_units() == {"bf16": bf16, "VNNI": vnni, "AMX": amx}


@pytest.mark.parametrize("text", [None, "processor\t: 0\nFeatures\t: fp asimd\n"])
def test_elsewhere_units_are_unknown(
    text: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    if text is not None:
        cpuinfo.write_text(text)
    monkeypatch.setattr(doctor, "_CPUINFO", cpuinfo)
    assert doctor.processor_units() is None
    told = {finding.what: finding.found for finding in doctor._machine(None)}
    assert told["processor's units"] == "unknown"
