"""The start of a run: its settings are compared with stored ones, and tried out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from dpcompress.blueprint import Blueprint
from dpcompress.errors import UsageError
from dpcompress.files import write_text
from dpcompress.pipeline.folder import RunFolder
from dpcompress.settings import RunSettings, changed, read_settings, verb_of
from dpcompress.settings.run import S
from dpcompress.tables import LatencyTable


def begin(
    settings: S | None,
    path: Path,
    kind: type[S],
    check: Callable[[S], None],
    until_planned: Sequence[str] = (),
) -> RunFolder[S]:
    """Begin the run at `path` with `settings`, or go on with the one that is there.

    Args:
        settings: None for those in the folder.
        check: refuses new settings that cannot work.
        until_planned: names of settings that may change as long as there is no plan.

    Raises:
        UsageError: the folder holds a run with other settings, or none to go on with.
    """
    file = path / "run.json"
    begun = settings is None or (path / "steps.json").exists()
    stored = read_settings(file, kind) if begun and file.exists() else None
    if settings is None:
        if stored is None:
            raise UsageError(f"{path} holds no run.", f"Say what to {verb_of(kind)}.")
        return RunFolder(path, kind)
    if settings.target.threads is None:
        threads = stored.target.threads if stored else torch.get_num_threads()
        settings = changed(settings, target=replace(settings.target, threads=threads))
    if stored is not None:
        _require_same(settings, stored, path, until_planned)
    if settings != stored:
        check(settings)
        write_text(file, settings.model_dump_json(indent=1) + "\n")
    return RunFolder(path, kind)


def _require_same(
    settings: RunSettings, stored: RunSettings, path: Path, until_planned: Sequence[str]
) -> None:
    asked, had = settings.model_dump(), stored.model_dump()
    other = [name for name in had if asked[name] != had[name]]
    if not (path / "plan.json").exists():
        # An infeasible budget must not cost the tables that it was tried on.
        other = [name for name in other if name not in until_planned]
    if other:
        raise UsageError(
            f"{path} holds a run with other settings ({', '.join(other)}).",
            f"Go on with `dpcompress {verb_of(type(settings))} -o FOLDER` alone, or "
            "choose another folder.",
        )


def require_own_table(settings: RunSettings, blueprint: Blueprint) -> None:
    """Refuse a latency table of another network, or of another target than the run's.

    Raises:
        BadTable: it cannot be read, or is of another network.
        UsageError: it was made for another engine, precision or batch.
    """
    if settings.latency is None:
        return
    table = LatencyTable.read(settings.latency)
    table.require(blueprint.digest)
    target = settings.target
    engine = target.engine.partition(":")[0]
    asked = {"engine": engine, "precision": target.precision, "batch": target.batch}
    for name, wanted in asked.items():
        made = table.header.get(name, str(wanted)).partition(":")[0]
        if made != str(wanted):
            raise UsageError(
                f"{settings.latency} was made for {name} {made}, not {wanted}.",
                f"Give --{name} {made}, or another table.",
            )
