"""score and finetune as a user calls them, on a network in a file of its own."""

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from dpcompress.blueprint import Span
from dpcompress.cli.main import app
from dpcompress.errors import BadInput, UsageError
from dpcompress.graph import linearize, merge, trace
from dpcompress.importance import plan_of
from dpcompress.models import (
    Origin,
    load_model,
    load_weights,
    read_origin,
    save_weights,
    weights_digest,
)
from dpcompress.tables import ImportanceTable, ScoreKey
from dpcompress.training import Recipe, evaluate, finetune
from tests.training.networks import small_digits

NETWORK = """
from torch import nn

def net():
    def layer(a, b, **options):
        return nn.Conv2d(a, b, 3, padding=1, **options), nn.BatchNorm2d(b), nn.ReLU()
    return nn.Sequential(*layer(3, 8), *layer(8, 8), *layer(8, 12, stride=2),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(48, 10))
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """MODEL --weights FILE --input SIZE --data digits."""
    folder = tmp_path_factory.mktemp("network")
    (folder / "mine.py").write_text(NETWORK)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = load_model(f"{folder}/mine.py:net")
    finetune(
        model, small_digits(), Recipe(epochs=4, batch_size=32, lr=0.1), validate=False
    )
    save_weights(folder / "trained.safetensors", model.state_dict())
    weights = ["--weights", str(folder / "trained.safetensors")]
    return [f"{folder}/mine.py:net", *weights, "--input", "3x8x8", "--data", "digits"]


def call(*arguments: object) -> dict[str, object]:
    result = CliRunner().invoke(app, [*map(str, arguments), "--json"])
    if result.exception is not None:
        raise result.exception
    found = json.loads(result.stdout)
    assert isinstance(found, dict)
    return found


def test_score_writes_a_table_that_resumes(trained: list[str], tmp_path: Path) -> None:
    output = tmp_path / "I.csv"
    arguments = ["score", *trained, "--steps", 1, "--workers", 1, "-o", output]
    facts = call(*arguments)
    table, text = ImportanceTable.read(output), output.read_bytes()
    assert facts["rows"] == len(table.frame) >= 3
    journal = tmp_path / "I.csv.journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    assert len(lines) == len(table.frame) + 1
    journal.write_bytes(b"".join(lines[:2]))
    output.unlink()
    call(*arguments)
    assert output.read_bytes() == text
    assert journal.read_bytes().startswith(b"".join(lines[:2]))


def test_finetuned_weights_are_what_merge_takes(
    trained: list[str], tmp_path: Path
) -> None:
    model = load_model(trained[0])
    blueprint = trace(model, (3, 8, 8))
    plan = plan_of(blueprint, ScoreKey(0, 2, "merge", True, True))
    output = tmp_path / "ft.safetensors"
    assert plan.merged == (Span(0, 2),)
    (tmp_path / "plan.json").write_text(plan.to_json())
    facts = call("finetune", *trained, "--plan", tmp_path / "plan.json",
                 "--epochs", 2, "-o", output)  # fmt: skip
    assert [p.name for p in tmp_path.iterdir() if "checkpoint" in p.name] == []
    original = weights_digest(load_model(trained[0], trained[2]).state_dict())
    origin = Origin(form="linearized", original=original, plan=plan.digest)
    assert read_origin(output) == origin
    network = linearize(model, plan)
    load_weights(network, output)
    merged, _ = merge(network)
    test = small_digits().test
    for form in (network, merged):
        assert evaluate(form, test).accuracy == facts["finetuned"]["accuracy"]  # type: ignore[index]


def test_untrained_networks_are_refused(trained: list[str], tmp_path: Path) -> None:
    without_weights = [trained[0], *trained[3:]]
    with pytest.raises(BadInput, match="near chance"):
        call("score", *without_weights, "-o", tmp_path / "I.csv")
    assert not list(tmp_path.iterdir())


def test_finetuned_in_merged_form_is_what_export_takes(
    trained: list[str], tmp_path: Path
) -> None:
    blueprint = trace(load_model(trained[0]), (3, 8, 8))
    plan, output = tmp_path / "plan.json", tmp_path / "ft.safetensors"
    plan.write_text(plan_of(blueprint, ScoreKey(0, 2, "merge", True, True)).to_json())
    facts = call("finetune", *trained, "--plan", plan, "--form", "merged",
                 "--epochs", 1, "--lr", 0.01, "-o", output)  # fmt: skip
    assert facts["finetuned"]["accuracy"] > 0.5  # type: ignore[index]
    done = call("export", trained[0], "--plan", plan, "--weights", output,
                "-o", tmp_path / "merged.onnx")  # fmt: skip
    assert done["check"]["max_error"] <= done["check"]["tolerance"]  # type: ignore[index]
    with pytest.raises(BadInput, match="holds merged weights"):
        call("merge", trained[0], "--plan", plan, "--weights", output,
             "-o", tmp_path / "merged.safetensors")  # fmt: skip
    with pytest.raises(BadInput, match="holds merged weights"):
        call("score", trained[0], "--weights", output, *trained[3:], "-o", "I.csv")
    with pytest.raises(UsageError, match="--form other"):
        call("finetune", *trained, "--plan", plan, "--form", "other", "-o", output)


def test_score_by_fitting(trained: list[str], tmp_path: Path) -> None:
    arguments = ["score", *trained, "--estimator", "fit", "-o", tmp_path / "I.csv"]
    facts = call(*arguments, "--images", 100, "--metric", "logits", "--workers", 1)
    assert json.loads(facts["estimator"])["images"] == 100  # type: ignore[arg-type]
    frame = ImportanceTable.read(tmp_path / "I.csv").frame
    scored = frame[frame["via"] == -1]
    assert (scored["importance"] == -scored["logits"]).all()
    for wrong, message in (
        (["--steps", 3], "estimator fit has no --steps"),
        (["--estimator", "guess"], "--estimator guess: should be 'finetune' or"),
        (["--estimator", "finetune", "--metric", "logits"], "finetune has no metric"),
        (["--executor", "cloud"], "--executor cloud: should be 'local' or"),
    ):
        with pytest.raises(UsageError, match=message):
            call(*arguments, *wrong)
