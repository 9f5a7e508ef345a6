"""Settings of a run: seeds, files, and what run.json may be."""

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from dpcompress.errors import BadInput, UsageError
from dpcompress.runner import Target
from dpcompress.settings import (
    EXAMPLE,
    FINETUNE,
    Recipe,
    Settings,
    ShrinkSettings,
    changed,
    read_settings,
    seeded,
)

SHRINK = ShrinkSettings(model="m", input=(3, 8, 8), data="digits", keep=3)


@pytest.mark.parametrize("settings", [EXAMPLE, SHRINK])
def test_settings_come_back_from_their_file(settings, tmp_path: Path):
    path = tmp_path / "run.json"
    path.write_text(settings.model_dump_json(indent=1))
    assert json.loads(path.read_text())["version"] == 2
    assert read_settings(path, type(settings)) == settings


def test_a_run_of_another_verb_or_release_is_refused(tmp_path: Path):
    path = tmp_path / "run.json"
    path.write_text(EXAMPLE.model_dump_json())
    with pytest.raises(UsageError, match="another verb than shrink"):
        read_settings(path, ShrinkSettings)
    old = {"version": 1, "model": "m", "engine": "onnxruntime", "budget": "70%"}
    path.write_text(json.dumps(old))
    with pytest.raises(BadInput, match=r"run\.json is of an earlier release.*\. Run"):
        read_settings(path, Settings)
    for damaged in ("", "[]", '{"version": 2}'):
        path.write_text(damaged)
        with pytest.raises(BadInput, match=r"run\.json"):
            read_settings(path, Settings)


def test_a_seed_is_set_everywhere():
    other = seeded(EXAMPLE, 7)
    seeds = (other.seed, other.finetune.seed, other.scoring.recipe.seed)
    assert seeds == (7, 7, 7)
    assert other.pretrain is not None and other.pretrain.seed == 7
    assert seeded(other, 0) == EXAMPLE
    arguments = changed(SHRINK, model_args={"seed": 1})
    assert seeded(arguments, 7).model_args == {"seed": 1}  # it is the network's own


def test_changes_are_checked():
    with pytest.raises(ValidationError, match="greater than 0"):
        changed(FINETUNE, lr=0)
    with pytest.raises(ValidationError, match="not both"):
        changed(EXAMPLE, weights="w.safetensors")
    assert changed(FINETUNE, lr=0.1) == Recipe(lr=0.1, distill_weight=0.5)


def test_files_are_named_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    made = ShrinkSettings(
        model="net.py:net",
        weights="w.safetensors",
        data="photos/",
        latency="T.csv",
        input=(3, 8, 8),
        keep=1,
    )
    assert made.model == f"{tmp_path}/net.py:net"
    assert made.weights == f"{tmp_path}/w.safetensors"
    assert made.data == f"{tmp_path}/photos"
    assert made.latency == f"{tmp_path}/T.csv"
    assert changed(made, data="cifar10:here").data == f"cifar10:{tmp_path}/here"
    kept = changed(made, model="timm:x", weights="default", data="digits")
    assert (kept.model, kept.weights, kept.data) == ("timm:x", "default", "digits")


def test_the_example_is_what_its_numbers_were_measured_with():
    assert EXAMPLE.target == Target(batch=32)
    assert EXAMPLE.scoring.recipe.steps == 8
    assert (EXAMPLE.finetune.epochs, EXAMPLE.finetune.lr) == (12, 0.05)
    assert (EXAMPLE.finetune.batch_size, EXAMPLE.finetune.distill_weight) == (64, 0.5)
