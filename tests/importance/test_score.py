import json
import multiprocessing
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from dpcompress.blueprint import Span
from dpcompress.errors import BadInput
from dpcompress.graph import trace
from dpcompress.importance import Estimator, Finetune, Fit, Scores, entries, score
from dpcompress.importance.journal import ScoreJournal
from dpcompress.importance.workers import foreign_modules
from dpcompress.models import load_model, weights_digest
from dpcompress.tables import ImportanceTable, ScoreKey
from dpcompress.training import Recipe, finetune, state_digest
from tests.training.networks import small_digits, tiny

QUICK = Finetune(Recipe(steps=2, batch_size=32, lr=0.01, augment=False), renew=True)
COMPANY = [(0, 1), (3, 4), (1, 4), (2, 4), (1, 3)]
SPANS = [Span(i, i + 1) for i in range(5)] + [Span(1, 4)]


class Trained:
    """A small network that knows the digits, made once."""

    def __init__(self) -> None:
        torch.set_num_threads(1)
        self.data = small_digits()
        self.model = tiny()
        finetune(self.model, self.data, Recipe(epochs=15, batch_size=32, lr=0.1))
        self.model.eval()
        self.blueprint = trace(self.model, (3, 8, 8))

    def score(self, **options: Any) -> ImportanceTable:
        options = {"estimator": QUICK, "workers": 1, "spans": SPANS} | options
        return score(self.model, self.blueprint, self.data, **options)


@pytest.fixture(scope="module")
def trained() -> Trained:
    return Trained()


@dataclass(frozen=True)
class Counting:
    """QUICK, and a list of what was asked of it."""

    asked: list[ScoreKey | None]
    settings, metrics, free_activations = QUICK.settings, QUICK.metrics, True
    alpha, chunks, prepare = QUICK.alpha, QUICK.chunks, QUICK.prepare

    def score(self, state: Any, entries: Sequence[ScoreKey | None]) -> list[Scores]:
        self.asked.extend(entries)
        return QUICK.score(state, entries)


class Stop(Exception):
    pass


def stop_at(count: int) -> Callable[..., None]:
    def progress(done: int, total: int, note: str = "") -> None:
        if done == count:
            raise Stop

    return progress


def test_table_says_what_it_was_made_from(trained: Trained, tmp_path: Path) -> None:
    table = trained.score(alpha=1.5)
    wanted = entries(trained.blueprint, SPANS)
    assert sorted(table.scores()) == sorted(wanted)
    assert table.linear_positions == {4}
    header = table.header
    assert header["blueprint"] == trained.blueprint.digest and header["input"] == "3x8x8"
    assert header["model"] == state_digest(trained.model)
    assert header["original"] == weights_digest(trained.model.state_dict())
    assert json.loads(header["estimator"])["recipe"]["steps"] == 2
    scored = table.frame[table.frame["via"] == -1]
    change = float(header["original_loss"]) - scored["loss"]
    shift = 1.5 * float(header["mean"])
    assert scored["importance"].values == pytest.approx((change - shift).values)
    table.write(tmp_path / "I.csv")
    assert ImportanceTable.read(tmp_path / "I.csv").to_csv() == table.to_csv()


def test_metric_and_normalisation_need_no_new_scores(
    trained: Trained, tmp_path: Path
) -> None:
    journal = tmp_path / "journal.jsonl"
    trained.score(journal=journal)
    asked: list[ScoreKey | None] = []
    table = trained.score(
        journal=journal, estimator=Counting(asked), metric="accuracy", alpha=0
    )
    assert asked == []
    scored = table.frame[table.frame["via"] == -1]
    change = scored["accuracy"] - float(table.header["original_accuracy"])
    assert scored["importance"].values == pytest.approx(change.values)


def test_interrupted_run_repeats_nothing_that_was_finished(
    trained: Trained, tmp_path: Path
) -> None:
    whole, journal = trained.score(), tmp_path / "journal.jsonl"
    first, second = [], []
    with pytest.raises(Stop):
        trained.score(estimator=Counting(first), journal=journal, progress=stop_at(4))
    assert len(first) == 4
    torn = journal.read_bytes()[:-9]
    journal.write_bytes(torn)
    resumed = trained.score(estimator=Counting(second), journal=journal)
    assert resumed.to_csv() == whole.to_csv()
    assert second[0] == first[-1] and not set(second[1:]) & set(first)
    assert len(first) + len(second) == 2 + len(entries(trained.blueprint, SPANS))


def test_results_of_another_network_are_not_reused(
    trained: Trained, tmp_path: Path
) -> None:
    journal, asked = tmp_path / "journal.jsonl", []
    trained.score(journal=journal, spans=SPANS[:2])
    other = tiny().eval()
    other.load_state_dict(trained.model.state_dict())
    with torch.no_grad():
        next(other.parameters())[0, 0, 0, 0] += 1e-6
    score(other, trained.blueprint, trained.data, estimator=Counting(asked),
          spans=SPANS[:2], workers=1, journal=journal)  # fmt: skip
    assert asked == [
        None,
        ScoreKey(0, 1, "merge", True, True),
        ScoreKey(1, 2, "merge", True, True),
    ]


@pytest.mark.slow
def test_table_does_not_depend_on_the_workers(tmp_path: Path) -> None:
    """With a network whose class lives in a file that workers cannot import."""
    file = tmp_path / "mine.py"
    file.write_text(
        "from torch import nn\n"
        "class Net(nn.Sequential): pass\n"
        "def net():\n"
        "    conv, relu = nn.Conv2d, nn.ReLU\n"
        "    return Net(conv(3, 4, 3, padding=1), relu(), conv(4, 4, 3, padding=1),\n"
        "        relu(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 10))\n"
    )
    torch.manual_seed(0)
    model, data = load_model(f"{file}:net"), small_digits()
    blueprint = trace(model, (3, 8, 8))
    torch.set_num_threads(2)
    one, two = (
        score(model, blueprint, data, estimator=QUICK, workers=n).to_csv() for n in (1, 2)
    )
    assert one == two and len(one.splitlines()) > 3


@pytest.mark.parametrize(
    "estimator",
    [QUICK, replace(QUICK, renew=False), Fit(images=100, heldout=100)],
    ids=["renewing", "keeping", "fit"],
)
def test_what_is_said_of_an_entry_does_not_depend_on_its_company(
    trained: Trained, estimator: Estimator
) -> None:
    before = state_digest(trained.model)
    ask = trained.model, trained.blueprint, trained.data
    asked = [None, *(ScoreKey(i, j, "merge", True, j != 4) for i, j in COMPANY)]
    state = estimator.prepare(*ask)
    together = estimator.score(state, asked)
    torch.rand(3)
    assert estimator.score(state, asked[::-1]) == together[::-1]
    for entry, scores in zip(asked, together, strict=True):
        assert estimator.score(state, [entry]) == [scores]
    assert estimator.score(estimator.prepare(*ask), asked[3:]) == together[3:]
    assert len({tuple(scores.items()) for scores in together[3:]}) == len(together[3:])
    chunks = estimator.chunks(asked)
    assert sorted(map(str, asked)) == sorted(str(e) for chunk in chunks for e in chunk)
    assert state_digest(trained.model) == before and not trained.model.training


def test_single_layers_start_from_new_weights(trained: Trained) -> None:
    """All that differs from the original is one layer, and that costs accuracy."""
    table = trained.score(spans=SPANS[:5], alpha=0)
    single = table.frame[(table.frame["act_start"] == 1) & (table.frame["via"] == -1)]
    original = float(table.header["original_loss"])
    assert (single["loss"] > original).all() and float(table.header["mean"]) < 0


def test_without_renewal_single_layers_are_the_network_trained_as_long(
    trained: Trained,
) -> None:
    own = replace(QUICK, renew=False, free_activations=False)
    state = own.prepare(trained.model, trained.blueprint, trained.data)
    single = [ScoreKey(i, i + 1, "merge", True, True) for i in (0, 1)]
    longer = ScoreKey(1, 4, "merge", True, False)
    assert own.chunks([None, *single, longer]) == [tuple(single), (None,), (longer,)]
    first, second = own.score(state, single)
    assert first == second != QUICK.score(state, single[:1])[0]
    assert own.settings != QUICK.settings
    table = trained.score(estimator=own, spans=SPANS, alpha=1)
    rows = table.frame[table.frame["stop"] - table.frame["start"] == 1]
    assert rows["importance"].abs().max() < 1e-12
    assert len(rows) == 5


def test_only_long_trainings_renew_unless_asked(trained: Trained) -> None:
    def chosen(**recipe: Any) -> tuple[bool, float]:
        estimator = Finetune(Recipe(**recipe))
        return estimator.renews, estimator.alpha

    assert chosen(steps=199) == (False, 1.0)
    assert chosen(steps=200) == chosen(epochs=1) == (True, 1.2)
    assert QUICK.renews and not replace(QUICK, renew=False).renews
    table = trained.score(estimator=replace(QUICK, renew=None), spans=SPANS[:5])
    assert '"renew":false' in table.header["estimator"].replace(" ", "")
    assert float(table.header["alpha"]) == 1


def test_a_helper_beside_the_file_of_the_network_reaches_the_workers(
    tmp_path: Path,
) -> None:
    (tmp_path / "helper_of_net.py").write_text(
        "def double(x):\n    return x + x\n",
    )
    (tmp_path / "helped.py").write_text(
        "from torch import nn\n"
        "from helper_of_net import double\n"
        "class Net(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.conv = nn.Conv2d(3, 4, 3)\n"
        "    def forward(self, x):\n"
        "        return double(self.conv(x))\n"
    )
    model = load_model(f"{tmp_path / 'helped.py'}:Net")
    names = {module.__name__ for module in foreign_modules(model)}
    assert names == {"_model_helped", "helper_of_net"}
    assert foreign_modules(tiny()) == []
    del sys.modules["helper_of_net"]


def test_frozen_norms_are_renewed_too(trained: Trained) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), FrozenBatchNorm2d(4), nn.ReLU()).eval()
    model[1].running_var.fill_(9.0)
    blueprint = trace(model, (3, 8, 8))
    QUICK._renew(model, blueprint, 1)
    assert (model[1].running_var == 1).all() and (model[1].running_mean == 0).all()


def test_journal_survives_anything_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    ScoreJournal(path).add("a", {"loss": 0.1 + 0.2}, entry=None)
    with open(path, "ab") as file:
        file.write(b'nonsense\n\xff\xfe\n[]\n{"key": 1}\n{"key": "b", "metrics": {"lo')
    ScoreJournal(path).add("c", {"loss": 1.0})
    assert ScoreJournal(path).results == {"a": {"loss": 0.1 + 0.2}, "c": {"loss": 1.0}}
    with pytest.raises(BadInput, match="cannot be used"):
        ScoreJournal(path / "below a file")


def score_quickly(folder: Path) -> None:
    torch.set_num_threads(1)
    model = tiny().eval()
    blueprint, journal = trace(model, (3, 8, 8)), folder / "journal.jsonl"
    table = score(model, blueprint, small_digits(), estimator=QUICK, workers=1,
                  journal=journal)  # fmt: skip
    table.write(folder / "I.csv")


@pytest.mark.slow
def test_sigkill(tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    score_quickly(whole)
    journal = killed / "journal.jsonl"
    process = multiprocessing.get_context("spawn").Process(
        target=score_quickly, args=(killed,)
    )
    process.start()
    while not (journal.exists() and journal.read_bytes().count(b"\n") > 3):
        assert process.is_alive()
        time.sleep(0.001)
    process.kill()
    process.join()
    before = journal.read_bytes()
    assert not (killed / "I.csv").exists()
    score_quickly(killed)
    finished = before.rpartition(b"\n")[0].splitlines()
    assert set(finished) <= set(journal.read_bytes().splitlines())
    assert journal.read_bytes() == (whole / "journal.jsonl").read_bytes()
    assert len(ScoreJournal(journal).results) == len(
        ScoreJournal(whole / "journal.jsonl").results
    )
    assert (killed / "I.csv").read_bytes() == (whole / "I.csv").read_bytes()
