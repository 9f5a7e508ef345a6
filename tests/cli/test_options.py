"""Options come from the settings: one name, default, help and check wherever they are."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import pytest
import typer

from dpcompress.cli.main import VERBS
from dpcompress.cli.options import with_options
from tests.cli.conftest import Outcome

Run = Callable[..., Outcome]

# Options that are fields of the settings, and the default that --help shows.
SHARED = {
    "--weights": None,
    "--model-args": None,
    "--input": None,
    "--data": None,
    "--resize": None,
    "--crop": None,
    "--mean": None,
    "--std": None,
    "--engine": "onnxruntime",
    "--device": None,
    "--precision": "fp32",
    "--threads": None,
    "--batch": "1",
    "--max-growth": "8.0",
    "--max-weight-mb": "64.0",
    "--epochs": "20",
    "--batch-size": "128",
    "--lr": "0.01",
    "--distill": "0.5",
    "--form": "linearized",
    "--estimator": None,
    "--budget": None,
    "--seed": "0",
    "--json": False,
}
# Options that are called like a shared one and are something else.
OTHERS = {
    ("merge", "--weights"): "of the linearized network, and needed",
    ("export", "--engine"): "options for the engine that --to names",
    ("finetune", "--precision"): "of the training, not of an engine",
    ("score", "--batch-size"): "of the training of each span",
    ("score", "--lr"): "of the training of each span",
}
# Written down, so that no verb loses an option unnoticed.
USERS = {
    "--device": {"bench", "compress", "profile", "shrink"},
    "--epochs": {"compress", "expand", "finetune", "shrink"},
    "--lr": {"compress", "expand", "finetune", "shrink"},
    "--batch-size": {"expand", "finetune"},
    "--distill": {"expand", "finetune"},
    "--form": {"compress", "finetune"},
    "--estimator": {"compress", "score"},
    "--budget": {"compress", "solve"},
    "--seed": {"compress", "expand", "finetune", "score", "shrink"},
    "--max-growth": {"compress", "inspect", "profile", "score", "shrink"},
}


def options_of(verb: Callable[..., None]) -> dict[str, Any]:
    app = typer.Typer(add_completion=False)
    app.command()(with_options(verb))
    return {p.opts[0]: p for p in typer.main.get_command(app).params}


@pytest.fixture(scope="module")
def users() -> dict[str, dict[str, Any]]:
    """Option → verb → the option of that verb, for the shared ones."""
    found: dict[str, dict[str, Any]] = defaultdict(dict)
    for verb in VERBS:
        for name, option in options_of(verb).items():
            if name in SHARED and (verb.__name__, name) not in OTHERS:
                found[name][verb.__name__] = option
    return found


@pytest.mark.parametrize("name", SHARED)
def test_a_shared_option_is_the_same_in_every_verb(
    name: str, users: dict[str, dict[str, Any]]
):
    assert len(users[name]) > 1
    assert users[name].keys() == USERS.get(name, users[name].keys())
    assert {option.default for option in users[name].values()} == {SHARED[name]}
    (help,) = {option.help for option in users[name].values()}
    assert help
    assert len({option.metavar for option in users[name].values()}) == 1


def test_every_option_says_what_it_is():
    for verb in VERBS:
        for name, option in options_of(verb).items():
            assert option.help, (verb, name)


NEEDED = {
    "compress": ["--budget", "70%", "-o", "run"],
    "shrink": ["--keep", "1", "-o", "run"],
    "expand": ["-o", "w.safetensors"],
    "finetune": ["--plan", __file__, "-o", "w.safetensors"],
    "score": ["-o", "I.csv"],
}


@pytest.mark.parametrize(
    ("verbs", "asked", "said"),
    [
        (USERS["--lr"], ["--lr", "0"], "--lr 0: should be greater than 0."),
        (USERS["--lr"], ["--lr", "x"], "--lr x: should be a valid number"),
        (USERS["--epochs"], ["--epochs", "0"], "--epochs 0: should be greater than or"),
        (
            USERS["--form"],
            ["--form", "x"],
            "--form x: should be 'linearized' or 'merged'",
        ),
        (USERS["--seed"], ["--mean", "red"], "--mean red: is not one number per channel"),
        (USERS["--seed"], ["--crop", "0"], "--crop 0: should be greater than or equal"),
        (USERS["--seed"], ["--input", "3x3"], "--input 3x3: is not CHANNELSxHEIGHTx"),
        (USERS["--seed"], ["--model-args", "a"], "--model-args a: is not NAME=VALUE"),
        ({"compress", "shrink"}, ["--threads", "0"], "--threads 0: should be greater"),
        ({"compress", "shrink"}, ["--batch", "-1"], "--batch -1: should be greater"),
        ({"compress"}, ["--score-steps", "0"], "--score-steps 0: should be greater"),
        ({"compress"}, ["--pretrain-epochs", "0"], "--pretrain-epochs 0: should be"),
        ({"shrink"}, ["--search-lr", "0"], "--search-lr 0: should be greater than 0"),
        ({"shrink"}, ["--by", "layer"], "--by layer: should be 'activation' or 'block'"),
        ({"score"}, ["--alpha", "-1"], "--alpha -1: should be greater than or equal"),
        ({"score"}, ["--executor", "cloud"], "--executor cloud: should be 'local' or"),
    ],
)
def test_a_bad_value_is_refused_in_the_same_words_by_every_verb(
    run: Run, net: str, verbs: set[str], asked: list[str], said: str
):
    for verb in verbs:
        known = ["--input", "3x8x8"] if "--input" not in asked else []
        done = run(verb, net, "--data", "digits", *known, *asked, *NEEDED[verb])
        assert (done.code, done.out) == (2, ""), done.err
        assert done.err.startswith(f"error: {said}")
        assert done.err.count("\n") == 1


def test_a_bad_value_is_an_object_with_json(run: Run, net: str):
    done = run("score", net, "--data", "digits", "--lr", 0, "-o", "I.csv", "--json")
    assert done.code == done.json["error"]["exit_code"] == 2
    assert done.json["error"]["message"] == "--lr 0: should be greater than 0."


def test_options_of_data_need_data(run: Run, net: str):
    asked = ("merge", net, "--plan", __file__, "--weights", "w.pt", "-o", "m.pt")
    done = run(*asked, "--crop", 8)
    assert done.code == 2 and done.err.startswith("error: This needs --data.")
