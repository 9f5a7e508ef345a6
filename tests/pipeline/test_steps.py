"""Steps are redone when, and only when, what they were made from changed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from dpcompress.errors import BadInput
from dpcompress.pipeline.folder import RunFolder
from dpcompress.pipeline.steps import Step, no_bars, run_steps
from dpcompress.settings import Settings

MADE = Settings(model="m", input=(3, 8, 8), data="digits", budget="70%")


class Work:
    """A step that reads some files and makes another; counts how often it was done."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.count = folder, 0
        self.step = Step(
            "step",
            self.run,
            makes=("plan.json",),
            settings=("seed",),
            external=("weights",),
            ignores=("original.onnx",),
            scratch=("half",),
        )

    def run(self, run: RunFolder[Settings], bars: object) -> None:
        self.count += 1
        run.to_read("read").read_text()
        assert run.original_onnx
        run.to_write("plan.json").write_text("made")
        (self.folder / "half").write_text("half")
        if run.has("optional"):
            run.to_write("extra").write_text("extra")

    def again(self, step: Step | None = None, **settings: object) -> bool:
        """Whether the step is done (again), and then no more."""
        before = self.count
        text = MADE.model_copy(update=settings).model_dump_json()
        (self.folder / "run.json").write_text(text)
        for _ in range(2):
            run_steps([step or self.step], RunFolder(self.folder, Settings), no_bars)
        assert self.count - before <= 1
        return self.count > before


def test_what_makes_a_step_be_done_again(tmp_path: Path) -> None:
    weights, folder = tmp_path / "weights", tmp_path / "run"
    folder.mkdir()
    for name in ("read", "original.onnx", "optional"):
        (folder / name).write_text(name)
    weights.write_text("a")
    work, given = Work(folder), {"weights": str(weights)}
    assert work.again(**given) and not work.again(**given)
    assert not (folder / "half").exists()
    assert not work.again(**given, budget="50%")
    assert work.again(**given, seed=2)
    for name in ("read", "plan.json", "extra"):
        (folder / name).write_text("changed")
        assert work.again(**given, seed=2), name
    (folder / "original.onnx").write_text("changed")
    assert not work.again(**given, seed=2)
    weights.write_text("b")
    assert work.again(**given, seed=2)
    weights.unlink()
    assert not work.again(**given, seed=2)
    weights.write_text("a")
    assert work.again(**given, seed=2)
    assert work.again(replace(work.step, version=2), **given, seed=2)
    never = replace(work.step, when=lambda settings: settings.seed > 2)
    assert not work.again(never, **given, seed=0) and work.again(never, **given, seed=3)


def test_a_step_that_does_not_make_its_files_is_a_bug(tmp_path: Path) -> None:
    work = Work(tmp_path)
    for name in ("read", "original.onnx"):
        (tmp_path / name).write_text(name)
    with pytest.raises(AssertionError, match="did not write"):
        work.again(replace(work.step, makes=("plan.json", "more")))


def test_a_damaged_ledger_is_named(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(MADE.model_dump_json())
    for text in ('{"step": ', "[]", '{"step": 1}'):
        (tmp_path / "steps.json").write_text(text)
        with pytest.raises(BadInput, match=r"steps\.json is not valid"):
            run_steps([], RunFolder(tmp_path, Settings), no_bars)
