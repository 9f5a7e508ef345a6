"""Steps as data, and the engine that does those of a run that are not done yet."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dpcompress.errors import BadInput
from dpcompress.files import digest, digest_file, write_text
from dpcompress.pipeline.folder import Record, RunFolder
from dpcompress.progress import Progress, silent

Bars = Callable[[str], AbstractContextManager[Progress]]


@contextmanager
def no_bars(title: str) -> Iterator[Progress]:
    """Show no progress."""
    yield silent


@dataclass(frozen=True)
class Step:
    """A step of a run.

    run: does the work; reads and writes files of the run folder only through it.
    makes: the files that the step always writes.
    settings: names of the settings that decide what it makes.
    external: names of those settings that name something outside of the folder: a file,
        or the images.
    ignores: files that it reads, but whose content does not change what it makes.
    scratch: files by which a step that was cut off goes on; deleted when it is done.
    when: tells whether a run with the given settings has the step.
    version: raised when the step makes something else than before, so that it is done
        again in older folders.
    """

    name: str
    run: Callable[[RunFolder[Any], Bars], None]
    makes: tuple[str, ...]
    settings: tuple[str, ...] = ()
    external: tuple[str, ...] = ()
    ignores: tuple[str, ...] = ()
    scratch: tuple[str, ...] = ()
    when: Callable[[Any], bool] = lambda settings: True
    version: int = 1


def run_steps(steps: Sequence[Step], folder: RunFolder[Any], bars: Bars) -> None:
    """Do the steps that are not done, in order, and write down what each was made from.

    A step is done if the files that it made are as it left them, and its settings, the
    files that it read and the things outside of the folder are as they were. What it
    read and made is taken from the folder's record. A file from outside may be gone:
    what was made of it is here. Finished steps are in RUN/steps.json.

    Raises:
        BadInput: steps.json is damaged.
        DpcompressError: any step's own.
    """
    done = _finished(folder.path / "steps.json")
    for step in steps:
        if not step.when(folder.settings):
            continue
        entry = done.get(step.name, {})
        made_from = {
            "settings": _settings_digest(step, folder),
            "external": _external(step, folder, entry.get("external", {})),
        }
        if not _is_done(folder, entry, made_from):
            folder.record = record = Record()
            step.run(folder, bars)
            missing = {*step.makes} - record.written
            assert not missing, f"step {step.name} did not write {missing}"
            read = record.read - record.written - {*step.ignores}
            done[step.name] = made_from | {
                "read": _digests(folder, read),
                "made": _digests(folder, record.written),
            }
            write_text(folder.path / "steps.json", json.dumps(done, indent=1) + "\n")
        for name in step.scratch:
            (folder.path / name).unlink(missing_ok=True)


def _finished(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_text())
        if not all(isinstance(entry, dict) for entry in found.values()):
            raise ValueError("a step is no object")
        return dict(found)
    except (ValueError, AttributeError) as error:
        raise BadInput(
            f"{path} is not valid JSON: {error}.",
            "Delete it; then every step is done again.",
        ) from error


def _is_done(
    folder: RunFolder[Any], entry: Mapping[str, Any], made_from: Mapping[str, Any]
) -> bool:
    if any(entry.get(key) != value for key, value in made_from.items()):
        return False
    files = {**entry["read"], **entry["made"]}
    return files == _digests(folder, files)


def _settings_digest(step: Step, folder: RunFolder[Any]) -> str:
    chosen = folder.settings.model_dump(mode="json", include={*step.settings})
    return digest(chosen | {"version": step.version})


def _external(
    step: Step, folder: RunFolder[Any], before: Mapping[str, str | None]
) -> dict[str, str | None]:
    """Digest what `step.external` names; a file that is gone keeps its last digest."""
    found: dict[str, str | None] = {}
    for name in step.external:
        value = getattr(folder.settings, name)
        if name == "data":
            found[name] = folder.data.digest
        elif value is not None and value != "default":
            found[value] = _digest(Path(value)) or before.get(value)
    return found


def _digests(folder: RunFolder[Any], names: Any) -> dict[str, str | None]:
    return {name: _digest(folder.path / name) for name in sorted(names)}


def _digest(path: Path) -> str | None:
    return digest_file(path) if path.is_file() else None
