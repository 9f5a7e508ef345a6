"""A make-believe GPU host with each of the versions."""

from pathlib import Path

import pytest

from tests.runner.tensorrt.fake import Machine
from tests.runner.tensorrt.signatures import VERSIONS, Api


def host(version: str, monkeypatch: pytest.MonkeyPatch) -> Machine:
    machine = Machine(Api.recorded(version))
    machine.install(monkeypatch)
    monkeypatch.setattr("dpcompress.runner.tensorrt.engine._PROBE_S", 0.01)
    monkeypatch.setattr("dpcompress.runner.tensorrt.session._WARM_UP_S", 0.01)
    monkeypatch.setattr("dpcompress.runner.tensorrt.session._BREAKDOWN_S", 0.02)
    return machine


@pytest.fixture(params=VERSIONS)
def machine(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Machine:
    monkeypatch.setenv("DPCOMPRESS_TIMING_CACHE", str(tmp_path / "timing"))
    return host(request.param, monkeypatch)
