"""Running the command line in this process, and a network small enough for it."""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dpcompress.cli.main import main

NET = """
from torch import nn

def block(i, o, stride=1):
    return [nn.Conv2d(i, o, 3, stride, 1, bias=False), nn.BatchNorm2d(o), nn.ReLU()]

def net(width=4, classes=3):
    layers = [*block(3, width), *block(width, width, 2), *block(width, width)]
    return nn.Sequential(
        *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes)
    )
"""


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Outcome]:
    def call(*arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["dpcompress", *map(str, arguments)])
        with pytest.raises(SystemExit) as done:
            main()
        printed = capsys.readouterr()
        return Outcome(int(done.value.code or 0), printed.out, printed.err)

    return call


@pytest.fixture
def net(tmp_path: Path) -> str:
    """A MODEL: three convolutions, two of which can merge in either pairing."""
    (tmp_path / "net.py").write_text(NET)
    return f"{tmp_path / 'net.py'}:net"
