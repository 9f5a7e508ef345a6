"""Bad input ends in one sentence with place and remedy, the right exit code, and nothing
half-written."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from dpcompress.blueprint import Limits, Plan, candidates
from dpcompress.cli.output import emit
from dpcompress.errors import InfeasibleBudget
from dpcompress.graph import trace
from dpcompress.models import load_model, save_weights
from dpcompress.tables import ImportanceTable, LatencyTable
from dpcompress.training import Recipe, finetune, load_data
from tests.cli.conftest import Outcome

Run = Callable[..., Outcome]
SIZE = (3, 8, 8)
ODD = """
from torch import nn

class Two(nn.Module):
    def forward(self, x, y):
        return x + y

class Branching(nn.Module):
    def forward(self, x):
        return x if x.mean() > 0 else -x

def two(): return Two()
def branching(): return Branching()
def linear(): return nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
def broken(): raise KeyError("boom")
def text(): return "net"
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained network, its images, tables and plan, as the verbs would leave them."""
    from tests.cli.conftest import NET

    folder = tmp_path_factory.mktemp("made")
    (folder / "net.py").write_text(NET)
    (folder / "odd.py").write_text(ODD)
    rng = np.random.default_rng(0)
    for number, name in enumerate(("red", "green", "blue")):
        (folder / "photos" / name).mkdir(parents=True)
        for index in range(24):
            pixels = rng.integers(0, 120, (8, 8, 3))
            pixels[..., number] += 130
            image = Image.fromarray(pixels.astype(np.uint8))
            image.save(folder / f"photos/{name}/{index}.png")
    torch.manual_seed(0)
    model = load_model(f"{folder / 'net.py'}:net")
    data = load_data(str(folder / "photos"), input_size=SIZE)
    finetune(model, data, Recipe(epochs=60, lr=0.1, augment=False), validate=False)
    save_weights(folder / "trained.safetensors", model.state_dict())
    blueprint = trace(model, SIZE)
    (folder / "blueprint.json").write_text(blueprint.to_json())
    spans = [tuple(span) for span in candidates(blueprint)]
    times = pd.DataFrame(spans, columns=["start", "stop"]).assign(latency_ms=1.0)
    scores = times[["start", "stop"]].assign(act_start=1, act_stop=1, importance=-1.0)
    header = {"input": "3x8x8", "e2e_ms": "4"}
    for name, digest in (("", blueprint.digest), ("other_", "0123456789abcdef")):
        known = header | {"blueprint": digest}
        LatencyTable(times, known).write(folder / f"{name}latency.csv")
        ImportanceTable(scores, known).write(folder / f"{name}importance.csv")
    plan = Plan.build((0, 2, 3), (2, 3), blueprint=blueprint.digest, input=SIZE)
    (folder / "plan.json").write_text(plan.to_json())
    return folder


@pytest.fixture
def here(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of `made`, as the working directory."""
    folder = tmp_path / "here"
    shutil.copytree(made, folder)
    monkeypatch.chdir(folder)
    return folder


def refused(done: Outcome, code: int, *words: str) -> None:
    assert done.code == code, done.err
    assert "Traceback" not in done.err
    message = done.err.splitlines()[-1]  # progress may come before it
    assert message.startswith("error: ")
    for word in words:
        assert word in message


def cut(path: Path) -> Path:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])
    return path


@pytest.mark.parametrize(
    ("model", "code", "words"),
    [
        ("torchvision:resnet19", 2, ["no model torchvision:resnet19", "resnet18"]),
        ("resnet18", 2, ["does not name a model", "torchvision:NAME"]),
        ("absent.py:net", 2, ["no file absent.py"]),
        ("net.py:nett", 2, ["no model net.py:nett", "Did you mean net?"]),
        ("odd.py:broken", 4, ["odd.py, line 15: KeyError", "Repair"]),
        ("odd.py:text", 2, ["returned str"]),
        ("odd.py:two", 4, ["takes 2 inputs", "Wrap it"]),
        ("odd.py:branching", 4, ["Branching.forward cannot be traced", "submodule"]),
        ("odd.py:linear", 4, ["no convolution"]),
    ],
)
def test_models(run: Run, here: Path, model: str, code: int, words: list[str]):
    refused(run("inspect", model, "--input", "3x8x8"), code, *words)
    refused(run("profile", model, "--input", "3x8x8", "-o", "T.csv"), code, *words)
    assert not list(here.glob("T.*"))


def score(run: Run, data: str, *more: object, weights: str = "trained.safetensors"):
    return run(
        *("score", "net.py:net", "--weights", weights, "--input", "3x8x8"),
        *("--data", data, "--steps", 1, "--workers", 1, "-o", "I.csv", *more),
    )


def test_images(run: Run, here: Path):
    for folder in ("empty", "one/red", "hollow/red", "hollow/green"):
        (here / folder).mkdir(parents=True)
    for folder in ("one", "hollow"):
        shutil.copy(here / "photos/red/0.png", here / folder / "red")
    shutil.copytree(here / "photos", here / "damaged")
    cut(here / "damaged/blue/7.png")
    shutil.copytree(here / "photos", here / "four")
    shutil.copytree(here / "photos/red", here / "four/pink")
    refused(score(run, "absent"), 2, "'absent' is neither a folder", "digits")
    refused(score(run, "empty"), 4, "empty has", "folder of its own")
    refused(score(run, "one"), 4, "one holds one class only, red", "Two classes")
    refused(score(run, "hollow"), 4, "classes green")
    refused(score(run, "damaged"), 4, "damaged/blue/7.png cannot be read", "Replace")
    refused(score(run, "four"), 4, "4 classes", "num_classes=4")
    assert not (here / "I.csv").exists()


def test_weights(run: Run, here: Path):
    untrained = load_model("net.py:net")
    save_weights(here / "untrained.safetensors", untrained.state_dict())
    refused(score(run, "photos", weights="untrained.safetensors"), 4, "near chance")
    refused(score(run, "photos", weights="default"), 2, "no weights named 'default'")
    refused(score(run, "photos", weights="absent.pt"), 4, "no weights file absent.pt")
    cut(here / "trained.safetensors")
    refused(score(run, "photos"), 4, "trained.safetensors cannot be read")


def test_pretrained_weights_without_a_network(
    run: Run, here: Path, monkeypatch: pytest.MonkeyPatch
):
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("TORCH_HOME", str(here / "cache"))
    done = run(
        *("score", "torchvision:squeezenet1_1", "--weights", "default"),
        *("--data", "photos", "-o", "I.csv"),
    )
    refused(done, 4, "torchvision:squeezenet1_1 cannot be had", "--weights FILE")


def test_tables_of_another_network(run: Run, here: Path):
    solve = ("solve", "--budget", "90%", "-o", "new.json", "--latency")
    both = "0123456789abcdef"
    done = run(*solve, "other_latency.csv", "--importance", "importance.csv")
    refused(done, 4, both, "same model")
    done = run(*solve, "latency.csv", "--importance", "other_importance.csv")
    refused(done, 4, both, "same model")
    done = score(run, "photos", "--latency", "other_latency.csv")
    refused(done, 4, "other_latency.csv", both, "Make it again")
    done = compress(run, "--latency", "other_latency.csv")
    refused(done, 4, "other_latency.csv", both, "Make it again")
    assert not (here / "new.json").exists() and not (here / "I.csv").exists()


def test_options_that_would_be_ignored(run: Run, here: Path):
    ask = ("score", "net.py:net", "--data", "photos", "-o", "I.csv", "--estimator")
    for option in (("--steps", 3), ("--batch-size", 3), ("--lr", 0.1), ("--no-renew",)):
        refused(run(*ask, "fit", *option), 2, f"fit has no {option[0]}", "Leave it out")
    refused(run(*ask, "finetune", "--images", 100), 2, "finetune has no --images")
    for option in (("--max-growth", 2), ("--max-weight-mb", 1), ("--input", "3x8x8")):
        refused(run("shrink", "-o", "run", *option), 2, f"{option[0]} without a MODEL")
    for option in (("--epochs", 3), ("--engine", "openvino"), ("--model-args", "a=1")):
        for verb in ("compress", "shrink"):
            refused(run(verb, "-o", "run", *option), 2, f"{option[0]} without a MODEL")
    refused(compress(run, "--train", "none", "--form", "merged"), 2, "is for training")
    table = LatencyTable.read(here / "latency.csv")
    header = table.header | {"max_growth": "1", "max_weight_mb": "16"}
    LatencyTable(table.frame, header).write(here / "limited.csv")
    done = score(run, "photos", "--latency", "limited.csv", "--max-growth", 2)
    refused(done, 2, "limited.csv", "other limits")


def test_values_that_no_setting_takes(run: Run, here: Path):
    refused(compress(run, "--lr", 0), 2, "--lr 0: ", "greater than 0")
    refused(score(run, "photos", "--lr", 0), 2, "--lr 0: ", "greater than 0")
    refused(compress(run, "--pretrain-epochs", 3), 2, "not both")
    assert not (here / "run/run.json").exists()


@pytest.mark.parametrize("other", [{"batch": "32"}, {"engine": "openvino"}])
def test_a_latency_table_of_another_engine(run: Run, here: Path, other: dict[str, str]):
    table = LatencyTable.read(here / "latency.csv")
    LatencyTable(table.frame, table.header | other).write(here / "odd.csv")
    ((name, value),) = other.items()
    words = f"odd.csv was made for {name} {value}", f"--{name} {value}"
    refused(compress(run, "--latency", "odd.csv"), 2, *words)
    assert not (here / "run/original.safetensors").exists()


def test_a_run_is_gone_on_with_from_anywhere(
    run: Run, here: Path, monkeypatch: pytest.MonkeyPatch
):
    """So it holds no relative paths."""
    refused(
        compress(run, "--latency", "latency.csv", "--budget", "1%"), 3, "No plan takes"
    )
    settings = json.loads((here / "run/run.json").read_text())
    assert settings["model"] == f"{here / 'net.py'}:net"
    assert settings["data"] == str(here / "photos")
    assert settings["latency"] == str(here / "latency.csv")
    (here / "elsewhere").mkdir()
    monkeypatch.chdir(here / "elsewhere")
    refused(run("compress", "-o", here / "run"), 3, "No plan takes")


def test_truncated_files(run: Run, here: Path):
    solve = ("solve", "--budget", "90%", "-o", "new.json")
    tables = ("--latency", "latency.csv", "--importance", "importance.csv")
    for name in ("latency.csv", "importance.csv"):
        whole = (here / name).read_bytes()
        (here / name).write_bytes(whole[:-4])
        refused(run(*solve, *tables), 4, f"{name}, line ", "make it again")
        (here / name).write_bytes(whole)
    cut(here / "blueprint.json")
    done = run(*solve, *tables, "--blueprint", "blueprint.json", "--max-params", 1000)
    refused(done, 4, "blueprint.json is not a valid blueprint file")
    cut(here / "plan.json")
    weights = ("--weights", "trained.safetensors", "--plan", "plan.json")
    for verb in ("merge", "export", "finetune"):
        data = ("--data", "photos")
        done = run(verb, "net.py:net", *weights, *data, "-o", "new.safetensors")
        refused(done, 4, "plan.json is not a valid plan file")
    assert not list(here.glob("new.*"))


@pytest.mark.slow
def test_engines_and_what_was_measured(
    run: Run, here: Path, monkeypatch: pytest.MonkeyPatch
):
    profile = ("profile", "net.py:net", "--input", "3x8x8", "-o", "T.csv")
    monkeypatch.setitem(sys.modules, "openvino", None)
    refused(run(*profile, "--engine", "openvino"), 5, "pip install", "openvino")
    refused(run(*profile, "--precision", "int3"), 5, "int3")
    refused(run(*profile, "--store", "photos/red/0.png"), 4, "photos/red/0.png")
    refused(run(*profile, "--results", "plan.json"), 4, "plan.json, line 1")
    refused(run(*profile, "--results", "absent.jsonl"), 4, "absent.jsonl")
    assert not list(here.glob("T.*"))


def test_a_budget_that_cannot_be_met(run: Run, here: Path):
    solve = ("solve", "--latency", "latency.csv", "--importance", "importance.csv")
    refused(run(*solve, "--budget", "1%", "-o", "p.json"), 3, "least possible latency")
    done = run(*solve, "--budget", "0.5ms", "-o", "p.json", "--json")
    assert done.code == 3 and done.json["error"]["least_ms"] == 2.0
    refused(run(*solve, "--budget", "soon", "-o", "p.json"), 2, "'soon' is not a budget")
    assert not (here / "p.json").exists()


def test_no_plan_at_all_is_null_in_json(capsys: pytest.CaptureFixture[str]):
    emit({"error": vars(InfeasibleBudget("None.", least_ms=float("inf")))})
    printed = capsys.readouterr().out
    assert json.loads(printed, parse_constant=pytest.fail)["error"]["least_ms"] is None


def compress(run: Run, *more: object, model: str = "net.py:net") -> Outcome:
    return run(
        *("compress", model, "--weights", "trained.safetensors", "--data", "photos"),
        *("--input", "3x8x8", "--threads", 1, "--epochs", 1, "--score-steps", 1),
        *("-o", "run", *(() if "--budget" in more else ("--budget", "90%")), *more),
    )


def test_compress_finds_faults_before_it_begins(run: Run, here: Path):
    refused(compress(run, "--budget", "soon"), 2, "'soon' is not a budget")
    refused(compress(run, "--engine", "none"), 2, "no engine 'none'")
    refused(compress(run, model="odd.py:branching"), 4, "cannot be traced")
    refused(run("compress", "--max-growth", 2, "-o", "run"), 2, "--max-growth without")
    assert not (here / "run").exists()


@pytest.mark.slow
def test_an_infeasible_run_keeps_its_tables_for_another_budget(run: Run, here: Path):
    first = compress(run, "--latency", "latency.csv", "--budget", "1%")
    refused(first, 3, "least possible latency")
    table = (here / "run/importance.csv").stat()
    refused(
        compress(run, "--latency", "other_latency.csv"), 2, "other settings (latency)"
    )
    refused(compress(run, "--seed", 1, "--latency", "latency.csv"), 2, "seed")
    done = compress(run, "--latency", "latency.csv", "--budget", "60%", "--json")
    assert done.code == 0 and done.json["compressed"]["layers"] < 3
    assert (here / "run/importance.csv").stat() == table
    again = compress(run, "--latency", "latency.csv", "--budget", "90%")
    refused(again, 2, "other settings (budget)", "another folder")
    for name in ("plan.json", "latency.csv", "finetuned.safetensors", "result.json"):
        cut(here / "run" / name)  # not as the step left it: made again
    assert run("compress", "-o", "run").code == 0
    for name in ("run.json", "steps.json"):
        whole = (here / "run" / name).read_bytes()
        cut(here / "run" / name)
        refused(run("compress", "-o", "run"), 4, f"run/{name}")
        (here / "run" / name).write_bytes(whole)


@pytest.mark.slow
def test_a_run_scores_only_what_its_limits_allow(run: Run, here: Path):
    known = ("--latency", "latency.csv", "--budget", "1%", "--max-growth", 1)
    refused(compress(run, *known), 3, "least possible latency")
    scored = pd.read_csv(here / "run/importance.csv", comment="#")
    spans = set(zip(scored["start"], scored["stop"], strict=True))
    blueprint = trace(load_model("net.py:net"), SIZE, Limits(max_growth=1))
    assert spans == set(map(tuple, candidates(blueprint)))
    assert spans < set(map(tuple, candidates(trace(load_model("net.py:net"), SIZE))))


def test_shrink_and_expand(run: Run, here: Path):
    known = ("net.py:net", "--weights", "trained.safetensors", "--data", "photos")
    shrink = ("shrink", *known, "--input", "3x8x8", "--threads", 1, "-o", "run")
    for keep in (0, 3):
        refused(run(*shrink, "--keep", keep), 2, f"{keep} of 2 masks", "Keep 1 to 2.")
    refused(run(*shrink, "--keep", 1, "--by", "block"), 4, "no residual blocks", "--by")
    refused(run(*shrink, "--keep", 1, "--by", "layer"), 2, "'activation' or 'block'")
    done = run(*shrink, "--keep", 1, "--latency", "other_latency.csv")
    refused(done, 4, "other_latency.csv", "0123456789abcdef", "Make it again")
    refused(run(*shrink), 2, "needs --keep")
    refused(run("shrink", "net.py:net", "-o", "run"), 2, "needs --data and --keep")
    refused(run("shrink", "-o", "run"), 2, "run holds no run")
    refused(run("shrink", "--keep", 1, "-o", "run"), 2, "--keep without a MODEL")
    done = run(*shrink, "--keep", 2, "--max-growth", 1)
    refused(done, 2, "2 of 1 masks")
    assert not (here / "run").exists()

    expand = ("expand", *known, "--input", "3x8x8", "-o", "new.safetensors")
    refused(run(*expand, "--convs", "9"), 2, "9 cannot be expanded", "Those that can: 0,")
    assert not (here / "new.safetensors").exists()


def test_outputs_that_cannot_be_written(run: Run, here: Path):
    merge = ("merge", "net.py:net", "--plan", "plan.json", "--weights")
    done = run(*merge, "trained.safetensors", "-o", "net.py/merged.safetensors")
    refused(done, 4, "net.py is no folder", "choose a folder")
    done = run(*merge, "trained.safetensors", "-o", "photos", "--certificate", "c.json")
    refused(done, 4, "photos cannot be written")
    refused(compress(run, "-o", "net.py"), 4, "cannot be written: net.py is no folder")
    assert not list(here.glob(".*")) and (here / "net.py").is_file()


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a disk of 64 kB")
def test_a_full_disk(run: Run, here: Path):
    (here / "disk").mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(here / "disk")]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        (here / "disk/filler").write_bytes(b"0" * 60_000)
        done = run(
            *("merge", "net.py:net", "--plan", "plan.json"),
            *("--weights", "trained.safetensors", "-o", "disk/merged.safetensors"),
        )
        refused(done, 4, "cannot be written", "No space left", "Free some space")
        assert [path.name for path in (here / "disk").iterdir()] == ["filler"]
    finally:
        subprocess.run(["umount", str(here / "disk")], check=True)


def test_merge_and_export_check_on_real_images(run: Run, here: Path):
    plan = ("net.py:net", "--plan", "plan.json", "--data", "photos", "--json")
    done = run("merge", *plan, "--weights", "trained.safetensors", "-o", "m.safetensors")
    assert done.code == 0 and done.json["difference_on_data"]["float64"] < 1e-10
    done = run("export", *plan, "--weights", "m.safetensors", "-o", "m.onnx")
    images = load_data("photos", input_size=SIZE)
    assert done.code == 0 and done.json["check"]["images"] == 8 + len(images.test)
