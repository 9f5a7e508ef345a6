"""The training-free estimator on a small trained network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from dpcompress.blueprint import Span, candidates
from dpcompress.errors import BadInput, UsageError
from dpcompress.graph import fit_merged, trace
from dpcompress.importance import (
    Finetune,
    Fit,
    calibration_images,
    plan_of,
    score,
)
from dpcompress.tables import ImportanceTable, ScoreKey
from dpcompress.training import Recipe, evaluate, finetune
from tests.training.networks import small_digits, tiny

QUICK = Fit(images=200, heldout=150)


class Trained:
    def __init__(self) -> None:
        torch.set_num_threads(1)
        self.data = small_digits()
        self.model = tiny()
        finetune(self.model, self.data, Recipe(epochs=15, batch_size=32, lr=0.1))
        self.model.eval()
        self.blueprint = trace(self.model, (3, 8, 8))

    def score(self, **options: Any) -> ImportanceTable:
        options = {"estimator": QUICK, "workers": 1} | options
        return score(self.model, self.blueprint, self.data, **options)


@pytest.fixture(scope="module")
def trained() -> Trained:
    return Trained()


def test_table_has_every_span_without_free_activations(trained: Trained) -> None:
    frame = trained.score().frame
    assert set(map(tuple, frame[["start", "stop"]].values.tolist())) == set(
        candidates(trained.blueprint)
    )
    flags = {(r.stop, r.act_stop) for r in frame.itertuples()}
    assert flags == {(1, 1), (2, 1), (3, 1), (4, 0), (5, 1)}
    single = frame[frame["stop"] - frame["start"] == 1]
    assert (single["importance"] == 0).all() and (single["logits"] == 0).all()
    scored = frame[(frame["stop"] - frame["start"] > 1) & (frame["via"] == -1)]
    assert (scored["importance"] < 0).all() and (scored["residual"] > 0).all()


def test_scores_are_those_of_the_fitted_network(trained: Trained) -> None:
    entry = ScoreKey(1, 4, "merge", True, False)
    state = QUICK.prepare(trained.model, trained.blueprint, trained.data)
    (scores,) = QUICK.score(state, [entry])
    network, _ = fit_merged(
        trained.model,
        plan_of(trained.blueprint, entry),
        calibration_images(trained.data, QUICK.images),
    )
    heldout = trained.data.heldout.sample(QUICK.heldout, 0)
    whole = evaluate(network, heldout)
    assert scores["accuracy"] == pytest.approx(whole.accuracy)
    assert scores["loss"] == pytest.approx(whole.loss, rel=1e-3)
    with torch.no_grad():
        ours, theirs = (
            net(heldout.first(len(heldout))).softmax(1)
            for net in (network, trained.model)
        )
    divergence = (theirs * (theirs.log() - ours.log())).sum(1).mean()
    assert scores["logits"] == pytest.approx(float(divergence), rel=1e-3)


def test_company_workers_and_interruptions_change_nothing(
    trained: Trained, tmp_path: Path
) -> None:
    whole = trained.score().to_csv()

    class Stop(Exception):
        pass

    def progress(done: int, total: int, note: str = "") -> None:
        if done > 8:
            raise Stop

    journal = tmp_path / "journal.jsonl"
    with pytest.raises(Stop):
        trained.score(journal=journal, progress=progress)
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join(lines[:1] + lines[-1:]))  # a chunk half remembered
    assert trained.score(journal=journal).to_csv() == whole


@pytest.mark.parametrize("metric", ["loss", "logits", "accuracy"])
def test_metrics(trained: Trained, metric: str) -> None:
    frame = trained.score(metric=metric, spans=[Span(0, 1), Span(1, 4)]).frame
    row = frame[frame["stop"] == 4].iloc[0]
    before = evaluate(trained.model, trained.data.heldout.sample(QUICK.heldout, 0))
    change = {
        "loss": before.loss - row["loss"],
        "logits": -row["logits"],
        "accuracy": row["accuracy"] - before.accuracy,
    }
    assert row["importance"] == pytest.approx(change[metric], abs=1e-5)


def test_labels_of_the_calibration_images_are_not_looked_at(trained: Trained) -> None:
    images = calibration_images(trained.data, 50)
    assert images.shape == (50, 3, 8, 8)
    assert torch.equal(images, calibration_images(trained.data, 50))
    assert not torch.equal(images, calibration_images(trained.data, 50, seed=1))
    assert len(calibration_images(trained.data, 10**6)) == len(trained.data.train)


def test_bad_input(trained: Trained) -> None:
    with pytest.raises(BadInput, match="16 calibration images, not 4"):
        trained.score(estimator=Fit(images=4))
    with pytest.raises(UsageError, match="finetune has no metric logits"):
        trained.score(estimator=Finetune(), metric="logits")
    with pytest.raises(BadInput, match="10 classes"):
        model = tiny(classes=4)
        score(model, trace(model, (3, 8, 8)), trained.data, estimator=QUICK, workers=1)
