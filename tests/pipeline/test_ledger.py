"""Steps are redone when, and only when, what they were made from changed."""

from pathlib import Path

import pytest

from dpcompress.errors import BadInput
from dpcompress.pipeline.ledger import Ledger


def runs(folder: Path, weights: Path, **settings: int) -> bool:
    """Whether the step was done (again)."""
    done = []

    def run() -> None:
        done.append(True)
        (folder / "made").write_text("made")

    Ledger(folder).step(
        "step",
        settings=settings,
        reads=("read",),
        takes=(str(weights),),
        makes=("made",),
        run=run,
    )
    return bool(done)


def test_what_makes_a_step_be_done_again(tmp_path: Path) -> None:
    weights, folder = tmp_path / "weights", tmp_path / "run"
    folder.mkdir()
    weights.write_text("a")
    assert runs(folder, weights) and not runs(folder, weights)
    assert runs(folder, weights, epochs=2) and not runs(folder, weights, epochs=2)
    (folder / "read").write_text("changed")
    assert runs(folder, weights) and not runs(folder, weights)
    (folder / "made").write_text("spoilt")
    assert runs(folder, weights) and not runs(folder, weights)
    weights.write_text("b")
    assert runs(folder, weights) and not runs(folder, weights)
    weights.unlink()
    assert not runs(folder, weights)
    weights.write_text("a")
    assert runs(folder, weights)


def test_a_damaged_ledger_is_named(tmp_path: Path) -> None:
    (tmp_path / "steps.json").write_text('{"step": ')
    with pytest.raises(BadInput, match=r"steps\.json is not valid JSON"):
        Ledger(tmp_path)
