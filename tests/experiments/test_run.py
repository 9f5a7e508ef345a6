"""Every experiment is run in one way: python -m experiments NAME."""

import re
import sys
from pathlib import Path

import pytest

from experiments.__main__ import experiments, main

ROOT = Path(__file__).parents[2]
NAMES = experiments()


@pytest.mark.parametrize("name", NAMES)
def test_each_says_how_it_is_run(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["experiments", name, "--help"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    told = capsys.readouterr().out
    assert f"usage: python -m experiments {name}" in told
    assert f"\n    python -m experiments {name}" in told


def test_without_a_name_the_names_are_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["experiments"])
    main()
    assert set(NAMES) <= set(capsys.readouterr().out.splitlines())
    monkeypatch.setattr(sys, "argv", ["experiments", "magic"])
    with pytest.raises(SystemExit, match="no experiment magic.*cifar10.compare"):
        main()


def test_readmes_name_the_experiments() -> None:
    pages = [*ROOT.glob("experiments/**/*.md"), ROOT / "latency_tables" / "README.md"]
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    assert set(re.findall(r"-m experiments (\w+\.\w+)", text)) == set(NAMES)
