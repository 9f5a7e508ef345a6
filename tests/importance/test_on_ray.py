"""The same table from a Ray cluster of this machine."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from dpcompress.blueprint import Span
from dpcompress.errors import BadInput, MissingPackage
from dpcompress.graph import trace
from dpcompress.importance import Finetune, Fit, score
from dpcompress.models import load_model
from dpcompress.training import Recipe
from tests.training.networks import small_digits

SPANS = [Span(0, 1), Span(1, 2), Span(0, 2)]
FILE = """
from torch import nn
class Net(nn.Sequential): pass
def net(classes=10):
    return Net(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1),
        nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, classes))
"""


@pytest.mark.slow
def test_ray_gives_the_same_table(tmp_path: Path) -> None:
    """With a network whose class lives in a file that Ray's workers cannot import."""
    ray = pytest.importorskip("ray")
    (tmp_path / "mine.py").write_text(FILE)
    torch.manual_seed(0)
    model, data = load_model(f"{tmp_path}/mine.py:net"), small_digits()
    blueprint = trace(model, (3, 8, 8))
    quick = Finetune(Recipe(steps=2, batch_size=32, lr=0.01, augment=False))
    done: list[int] = []

    def progress(finished: int, total: int, note: str = "") -> None:
        done.append(finished)

    for estimator in (Fit(images=100, heldout=100), quick):
        tables = [
            score(
                model,
                blueprint,
                data,
                estimator=estimator,
                spans=SPANS,
                executor=executor,
                workers=2 if executor == "ray" else 1,
                journal=tmp_path / f"{executor}.jsonl",
                progress=progress,
            ).to_csv()
            for executor in ("local", "ray")
        ]
        assert tables[0] == tables[1] and done[-1] == 4
        if estimator is not quick:  # the first cluster was started and stopped by score
            assert not ray.is_initialized()
            ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    assert ray.is_initialized()
    journals = [(tmp_path / f"{e}.jsonl").read_bytes() for e in ("local", "ray")]
    assert journals[0] == journals[1]
    bad = load_model(f"{tmp_path}/mine.py:net", None, {"classes": 3})
    with pytest.raises(BadInput, match="^The data has 10 classes"):
        score(bad, trace(bad, (3, 8, 8)), data, estimator=Fit(images=100),
              spans=SPANS, executor="ray", workers=1)  # fmt: skip
    ray.shutdown()


def test_without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    from dpcompress.importance.on_ray import run_on_ray

    with pytest.raises(MissingPackage, match="dpcompress\\[ray\\]"):
        list(run_on_ray(len, ["job"], None, []))
