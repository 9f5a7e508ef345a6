"""What the README shows is what works."""

import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import dpcompress

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
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
