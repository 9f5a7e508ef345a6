"""What the README shows is what works."""

import re
import shlex
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import typer

import dpcompress
from dpcompress.cli.main import VERBS
from dpcompress.cli.options import with_options

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [
    ROOT / "README.md",
    ROOT / "latency_tables" / "README.md",
    *ROOT.glob("docs/*.md"),
    *ROOT.glob("experiments/**/*.md"),
]
PYTHON = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)

NET = """
from torch import nn

def net(num_classes):
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 8, 3, 1, 1), nn.BatchNorm2d(8), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, num_classes),
    )
"""

PRELUDE = """
import sys
import torch
import dpcompress
from dpcompress.models import save_weights

torch.manual_seed(0)
net = dpcompress.load_model("net.py:net", num_classes=10)
save_weights("run/original.safetensors", net.state_dict())

def train(network):
    dpcompress.finetune(network, data, Recipe(epochs=1))
"""


def test_every_public_name_is_there():
    for name in dpcompress.__all__:
        assert callable(getattr(dpcompress, name))
    assert set(dpcompress.__all__) <= set(dir(dpcompress))
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = dpcompress.no_such_name


def test_readme_names_every_verb_that_exists():
    verbs = set(re.findall(r"^\| `(\w+)`.* \|", README, flags=re.MULTILINE))
    for path in (ROOT / "dpcompress/cli").glob("*.py"):
        if path.stem != "main" and f"\ndef {path.stem}(" in path.read_text():
            assert path.stem in verbs


def commands(page):
    """Every call of dpcompress in the shell blocks of a page, as its words."""
    blocks = re.findall(r"```bash\n(.*?)```", page.read_text("utf-8"), flags=re.DOTALL)
    for line in "".join(blocks).replace("\\\n", " ").splitlines():
        for part in re.split(r"&&|;", line.partition(" #")[0]):
            words = shlex.split(part)
            if words[:1] == ["dpcompress"]:
                yield words[1:]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_shown_have_verbs_and_options_that_exist(page):
    verbs = {verb.__name__: verb for verb in VERBS}
    for verb, *words in commands(page):
        app = typer.Typer()
        app.command()(with_options(verbs[verb]))
        options = {o for p in typer.main.get_command(app).params for o in p.opts}
        used = {word for word in words if word.startswith("-")}
        assert used <= options, (verb, used - options)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files(page):
    links = re.findall(r"\]\(([^)#:]+)\)", page.read_text("utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.slow
def test_readme_python_runs_on_a_small_network(tmp_path):
    (tmp_path / "net.py").write_text(NET)
    first, second = PYTHON
    script = "\n".join([PRELUDE, first, textwrap.indent(second, "    ")])
    for shown, small in (
        ("torchvision:mobilenet_v2", "net.py:net"),
        ("epochs=20", "epochs=1"),
        ("0.7 *", "100 *"),  # so small a network has nothing to spare
    ):
        assert shown in script
        script = script.replace(shown, small)
    (tmp_path / "readme.py").write_text(script)
    done = subprocess.run(
        [sys.executable, "readme.py"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
        capture_output=True,
        timeout=300,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "merged.onnx").stat().st_size > 0
