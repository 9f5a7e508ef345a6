import csv
import multiprocessing
import time
from dataclasses import astuple
from math import cos, pi
from pathlib import Path
from typing import Literal

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from dpcompress.errors import BadInput, TrainingDiverged
from dpcompress.files import replacing
from dpcompress.training import (
    Extension,
    Recipe,
    check_above_chance,
    deterministic,
    evaluate,
    finetune,
    predict_logits,
    state_digest,
)
from dpcompress.training.checkpoint import load_checkpoint
from tests.training.networks import small_digits, tiny

RECIPE = Recipe(epochs=3, batch_size=128, lr=0.05, label_smoothing=0.1)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


class Stop(Exception):
    pass


def interrupt_at(step: int):  # type: ignore[no-untyped-def]
    def progress(done: int, total: int, note: str = "") -> None:
        if done == step:
            raise Stop

    return progress


@pytest.mark.slow
def test_it_learns_and_leaves_global_state_alone() -> None:
    data, model = small_digits(), tiny()
    before = torch.get_rng_state()
    history = finetune(model, data, Recipe(epochs=24, batch_size=64, lr=0.1))
    assert torch.equal(before, torch.get_rng_state())
    assert not torch.are_deterministic_algorithms_enabled()
    assert [line.epoch for line in history] == [*range(1, 25)]
    assert history[-1].loss < history[0].loss
    metrics = evaluate(model, data.test)
    assert metrics.accuracy > 0.8 and metrics.count == len(data.test)
    check_above_chance(metrics, 10)


@pytest.mark.parametrize(
    ("step", "seconds", "kept"),
    [(1, 1e9, None), (8, 1e9, None), (9, 1e9, 8), (2, 0, 1), (13, 0, 12), (23, 0, 22)],
)
def test_resumed_run_ends_with_the_same_bits(
    tmp_path: Path, step: int, seconds: float, kept: int | None
) -> None:
    """With teacher and dropout; the run is cut inside and at the end of epochs of 8, with
    a checkpoint after every epoch only, or after every step."""
    data, teacher = small_digits(), tiny(dropout=0)
    recipe = RECIPE.model_copy(update={"distill_weight": 0.5, "grad_clip": 1.0})
    whole = tiny()
    history = finetune(whole, data, recipe, teacher=teacher)
    path = tmp_path / "fit.checkpoint"
    with pytest.raises(Stop):
        finetune(tiny(), data, recipe, teacher=teacher, checkpoint=path,
            checkpoint_seconds=seconds, progress=interrupt_at(step))  # fmt: skip
    assert (load_checkpoint(path)[1]["step"] if path.exists() else None) == kept
    resumed = tiny()
    assert finetune(resumed, data, recipe, teacher=teacher, checkpoint=path) == history
    assert state_digest(resumed) == state_digest(whole)
    again = tiny()
    finetune(
        again, data, recipe, teacher=teacher, checkpoint=path, progress=interrupt_at(1)
    )
    assert state_digest(again) == state_digest(whole)


def test_checkpoint_of_something_else_is_not_used(tmp_path: Path) -> None:
    data, path = small_digits(), tmp_path / "fit.checkpoint"
    finetune(tiny(), data, RECIPE, checkpoint=path)
    other = RECIPE.model_copy(update={"lr": 0.01})
    fresh, reused = tiny(), tiny()
    finetune(fresh, data, other)
    finetune(reused, data, other, checkpoint=path)
    assert state_digest(fresh) == state_digest(reused)
    assert load_checkpoint(path)[1]["history"][-1]["epoch"] == 3


def test_resume_takes_the_threads_of_the_first_run(tmp_path: Path) -> None:
    data, path = small_digits(), tmp_path / "fit.checkpoint"
    with pytest.raises(Stop):
        finetune(tiny(), data, RECIPE, checkpoint=path, progress=interrupt_at(9))
    torch.set_num_threads(2)
    finetune(tiny(), data, RECIPE, checkpoint=path)
    assert torch.get_num_threads() == 2
    assert load_checkpoint(path)[1]["threads"] == 1


def test_damaged_checkpoint(tmp_path: Path) -> None:
    data, path = small_digits(), tmp_path / "fit.checkpoint"
    finetune(tiny(), data, RECIPE.model_copy(update={"steps": 1}), checkpoint=path)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(BadInput, match="damaged"):
        finetune(tiny(), data, RECIPE, checkpoint=path)


def test_divergence_stops_with_the_last_good_weights(tmp_path: Path) -> None:
    class Fuse(nn.Module):
        """Blows in the second epoch."""

        def __init__(self) -> None:
            super().__init__()
            self.net, self.calls = tiny(dropout=0), 0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.calls += self.training
            return self.net(x) * (torch.inf if self.calls == 11 else 1)

    data, model, path = small_digits(), Fuse(), tmp_path / "fit.checkpoint"
    with pytest.raises(TrainingDiverged, match="epoch 2.*last good weights") as caught:
        finetune(model, data, RECIPE, checkpoint=path)
    assert "learning rate (now 0.05)" in caught.value.remedy
    good = load_checkpoint(path)[0]["model"]
    assert all(torch.equal(v, good[k]) for k, v in model.state_dict().items())


def test_classes_must_match() -> None:
    data = small_digits()
    with pytest.raises(BadInput, match="10 classes"):
        finetune(tiny(classes=11), data, RECIPE)
    with pytest.raises(BadInput, match="num_classes=10"):
        evaluate(tiny(classes=9), data.test)


def test_near_chance_is_refused() -> None:
    with pytest.raises(BadInput, match="near chance"):
        check_above_chance(evaluate(tiny(), small_digits().test), 10)


def test_steps_and_schedules() -> None:
    assert (
        finetune(tiny(), small_digits(), Recipe(steps=11, batch_size=128))[-1].steps == 11
    )
    cosine = Recipe(lr=1, warmup=0.2)
    assert [cosine.lr_at(s, 10) for s in (0, 2, 6)] == pytest.approx(
        [1 / 3, 1, (1 + cos(pi / 2)) / 2]
    )
    onecycle = Recipe(lr=1, warmup=0.5, schedule="onecycle")
    rates = [onecycle.lr_at(s, 20) for s in range(20)]
    assert rates.index(max(rates)) == 10 and rates[0] < 0.1 and rates[-1] < 0.03
    assert Recipe(lr=1, warmup=0, schedule="constant").lr_at(9, 10) == 1


def test_norms_and_biases_do_not_decay() -> None:
    data = small_digits()
    strong = Recipe(steps=1, batch_size=64, lr=1e-9, weight_decay=1e8, warmup=0)
    before, model = tiny(), tiny()
    finetune(model, data, strong)
    old = dict(before.named_parameters())
    for name, value in model.named_parameters():
        assert torch.allclose(value, old[name], atol=1e-4) == (value.dim() == 1), name


def test_distillation_alone_follows_the_teacher() -> None:
    data, teacher, student = small_digits(), tiny(dropout=0), tiny(dropout=0)
    with torch.no_grad():
        student[-1].weight.mul_(-1)  # type: ignore[index]
    recipe = Recipe(epochs=6, batch_size=128, lr=0.2, distill_weight=1.0)
    losses = [line.loss for line in finetune(student, data, recipe, teacher=teacher)]
    assert losses[-1] < losses[0] / 3


def test_prediction_keeps_modes_and_order() -> None:
    data, model = small_digits(), tiny().train()
    model.stem.eval()  # type: ignore[union-attr]
    logits = predict_logits(model, data.test, batch=100)
    assert model.training and not model.stem.training  # type: ignore[union-attr]
    assert torch.allclose(logits, predict_logits(model, data.test, batch=77), atol=1e-5)


def test_deterministic_restores_settings() -> None:
    torch.set_num_threads(1)
    with deterministic(2) as threads:
        assert threads == torch.get_num_threads() == 2
    assert torch.get_num_threads() == 1


def train(folder: Path) -> None:
    torch.set_num_threads(1)
    model, recipe = tiny(), Recipe(epochs=8, batch_size=64, lr=0.05)
    finetune(model, small_digits(), recipe, checkpoint=folder / "fit.checkpoint",
        checkpoint_seconds=0.1,
        progress=lambda done, total, note="": steps(folder, done))  # fmt: skip
    with replacing(folder / "weights.safetensors") as path:
        save_file(model.state_dict(), path)


def steps(folder: Path, done: int) -> None:
    with open(folder / "steps", "a") as file:
        file.write(f"{done}\n")


@pytest.mark.slow
def test_sigkill_at_any_moment(tmp_path: Path) -> None:
    """Killed three times by the operating system, then run to its end: the same file."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, killed):
        folder.mkdir()
    train(whole)
    log = killed / "steps"
    for limit in (20, 71, 100):
        process = multiprocessing.get_context("spawn").Process(
            target=train, args=(killed,)
        )
        process.start()
        while not (log.exists() and len(log.read_text().split()) >= limit):
            assert process.is_alive()
            time.sleep(0.001)
        process.kill()
        process.join()
        assert not (killed / "weights.safetensors").exists()
    train(killed)
    weights = [(f / "weights.safetensors").read_bytes() for f in (whole, killed)]
    assert weights[0] == weights[1]
    repeated = len(log.read_text().split()) - len((whole / "steps").read_text().split())
    assert 0 <= repeated < 3 * 2 * 16


def test_an_extension_sees_every_step_and_changes_the_loss(tmp_path: Path) -> None:
    data, path = small_digits(), tmp_path / "fit.checkpoint"
    recipe = RECIPE.model_copy(update={"epochs": 2})

    def run(seen: list[float], weight: float, **options: object) -> nn.Module:
        model = tiny()
        extension = Extension(
            on_step=seen.append,
            extra_loss=lambda images, logits: weight * logits.square().mean(),
            settings=["pull to zero", weight],
        )
        finetune(model, data, recipe, extension=extension, **options)  # type: ignore[arg-type]
        return model

    seen: list[float] = []
    whole = run(seen, 10.0)
    assert seen == [step / 16 for step in range(17)]
    assert predict_logits(whole, data.test).abs().mean() < 0.3 * (
        predict_logits(run([], 0.0), data.test).abs().mean()
    )
    with pytest.raises(Stop):
        run([], 10.0, checkpoint=path, progress=interrupt_at(11))
    seen = []
    assert state_digest(run(seen, 10.0, checkpoint=path)) == state_digest(whole)
    assert seen[0] == 0.5 and seen[-1] == 1.0
    other: list[float] = []
    run(other, 0.5, checkpoint=path)
    assert other[0] == 0.0


def test_the_log_is_the_history(tmp_path: Path) -> None:
    log = tmp_path / "finetune.csv"
    history = finetune(tiny(), small_digits(), RECIPE, log=log)
    header, *lines = csv.reader(log.read_text().splitlines())
    assert header[:3] == ["epoch", "steps", "loss"]
    assert [[float(x) for x in line] for line in lines] == [
        list(map(float, astuple(epoch))) for epoch in history
    ]


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_trains_about_as_well_and_keeps_float_weights(
    precision: Literal["bf16", "fp16"],
) -> None:
    data, losses = small_digits(), []
    for chosen in ("fp32", precision):
        model = tiny(dropout=0)
        recipe = RECIPE.model_copy(update={"precision": chosen})
        losses.append([epoch.loss for epoch in finetune(model, data, recipe)])
        assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert losses[1] != losses[0]
    assert losses[1] == pytest.approx(losses[0], rel=0.02)
