"""A run folder: every file of a run, opened and written with its type."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, Self, TypeVar, overload

import pandas as pd
from pydantic import JsonValue, TypeAdapter, ValidationError
from torch import fx, nn

from dpcompress.blueprint import Blueprint, Plan
from dpcompress.blueprint.data import Frozen
from dpcompress.errors import BadInput, UsageError
from dpcompress.exporters import ExportCheck
from dpcompress.files import write_bytes, write_text
from dpcompress.graph import build, linearize
from dpcompress.graph.certificate import Certificate
from dpcompress.graph.fit_merged import FitReport
from dpcompress.latency import Store
from dpcompress.models import (
    Origin,
    load_model,
    load_weights,
    read_origin,
    require_origin,
    save_weights,
)
from dpcompress.models.origin import Form
from dpcompress.pipeline.closed_loop import Loop
from dpcompress.pipeline.result import Result
from dpcompress.settings import Settings, ShrinkSettings, read_settings, verb_of
from dpcompress.settings.run import S
from dpcompress.solver import read_frontier, write_frontier
from dpcompress.tables import ImportanceTable, LatencyTable
from dpcompress.training import Data, Metrics, load_data

T = TypeVar("T")


class Original(Frozen):
    """The facts about the original network: its data and how well it does on them.

    data: `Data.description`.
    heldout, test: its metrics on the two splits.
    """

    data: dict[str, JsonValue]
    heldout: Metrics
    test: Metrics


class MasksFound(Frozen):
    """The outcome of a search for masks: see `depthshrinker.Found`."""

    groups: tuple[tuple[int, ...], ...]
    on: tuple[int, ...]
    activations: tuple[int, ...]


@dataclass
class Record:
    """The names of the files of a run folder that were read, and that were written."""

    read: set[str] = field(default_factory=set)
    written: set[str] = field(default_factory=set)


class File(Generic[T]):
    """A file of a run folder, as an attribute of `RunFolder`.

    To get the attribute is to read the file and check it; to set it is to write the file
    atomically. Both are recorded.
    """

    def __init__(
        self, name: str, read: Callable[[Path], T], write: Callable[[T, Path], None]
    ) -> None:
        self.name, self._read, self._write = name, read, write

    @overload
    def __get__(self, folder: None, owner: object) -> Self: ...
    @overload
    def __get__(self, folder: RunFolder[Any], owner: object) -> T: ...
    def __get__(self, folder: RunFolder[Any] | None, owner: object) -> Self | T:
        return self if folder is None else self._read(folder.to_read(self.name))

    def __set__(self, folder: RunFolder[Any], value: T) -> None:
        self._write(value, folder.to_write(self.name))


def _json(
    name: str, kind: type[T], write: Callable[[T, Path], None] | None = None
) -> File[T]:
    """A JSON file that holds a `kind`: a pydantic model or a dataclass."""
    adapter = TypeAdapter(kind)

    def read(path: Path) -> T:
        try:
            return adapter.validate_json(path.read_bytes())
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"])) or "the file"
            raise BadInput(
                f"{path} is not valid: {place}: {first['msg']}.",
                "Delete it; then `compress -o` or `shrink -o` makes it again.",
            ) from error

    def write_plainly(value: T, path: Path) -> None:
        data = adapter.dump_python(value, mode="json")
        write_text(path, json.dumps(data, indent=1) + "\n")

    return File(name, read, write or write_plainly)


def _bytes(name: str) -> File[bytes]:
    return File(name, Path.read_bytes, lambda data, path: write_bytes(path, data))


class RunFolder(Generic[S]):
    """The files of one run. It can be read without running anything.

    `RunFolder(path, Settings)` is a run of `compress`, `RunFolder(path, ShrinkSettings)`
    one of `shrink`; `open_run` finds out which.

    record: what was read and written since the record was last replaced. The engine in
        `steps` learns from it what each step depends on.

    Raises (all attributes that are files):
        BadInput: the file is missing or damaged.
    """

    blueprint = File(
        "blueprint.json",
        lambda path: Blueprint.from_json(path.read_bytes(), path),
        lambda blueprint, path: write_text(path, blueprint.to_json()),
    )
    plan = File(
        "plan.json",
        lambda path: Plan.from_json(path.read_bytes(), path),
        lambda plan, path: write_text(path, plan.to_json()),
    )
    latency = File("latency.csv", LatencyTable.read, LatencyTable.write)
    importance = File("importance.csv", ImportanceTable.read, ImportanceTable.write)
    frontier = File("frontier.csv", read_frontier, write_frontier)
    original = _json("original.json", Original)
    closed_loop = _json("closed_loop.json", Loop)
    certificate = File(
        "certificate.json",
        lambda path: Certificate.from_json(path.read_bytes(), path),
        lambda certificate, path: write_text(path, certificate.to_json()),
    )
    fit_report = File(
        "fit.json",
        lambda path: FitReport.from_json(path.read_bytes(), path),
        lambda report, path: write_text(path, report.to_json()),
    )
    export_check = _json("export.json", ExportCheck)
    result = _json("result.json", Result)
    masks = _json("masks.json", MasksFound)
    mask_history = File(
        "masks.csv",
        pd.read_csv,
        lambda history, path: write_text(path, history.to_csv(index=False)),
    )
    original_onnx = _bytes("original.onnx")
    compressed_onnx = _bytes("compressed.onnx")
    frontier_picture = _bytes("frontier.png")
    structure_picture = _bytes("structure.png")
    masks_picture = _bytes("masks.png")

    def __init__(self, path: Path, kind: type[S]) -> None:
        self.path, self.kind = path, kind
        self.record = Record()

    def has(self, name: str) -> bool:
        """Whether the run has the file `name` so far."""
        return (self.path / name).is_file()

    def to_read(self, name: str) -> Path:
        """The path of the file `name`, recorded as read.

        Raises:
            BadInput: it is not there.
        """
        if not self.has(name):
            raise BadInput(
                f"{self.path} has no {name}.",
                f"Finish the run: dpcompress {verb_of(self.kind)} -o {self.path}",
            )
        self.record.read.add(name)
        return self.path / name

    def to_write(self, name: str) -> Path:
        """The path of the file `name`, recorded as written."""
        self.record.written.add(name)
        return self.path / name

    @cached_property
    def settings(self) -> S:
        return read_settings(self.path / "run.json", self.kind)

    @property
    def data(self) -> Data:
        """The images of the run; original.json, which identifies them, counts as read."""
        self.record.read.add("original.json")
        return self._data

    @cached_property
    def _data(self) -> Data:
        settings = self.settings
        return load_data(
            settings.data,
            input_size=settings.input,
            resize=settings.resize,
            crop=settings.crop,
            mean=settings.mean,
            std=settings.std,
        )

    def store(self) -> Store:
        """The store of all measurements of the run: a step that is redone finds them."""
        return Store(self.path / "measurements.sqlite")

    def new_network(self, weights: str | None = None) -> nn.Module:
        """The original network with the weights that `weights` names, if any."""
        return load_model(self.settings.model, weights, self.settings.model_args)

    def original_network(self) -> nn.Module:
        """The trained original, in eval mode."""
        return self.new_network(str(self.to_read("original.safetensors")))

    def linearized_network(self, weights: str | None = None) -> fx.GraphModule:
        """The plan's network before it is merged, with the original's weights or those
        of a file of the run."""
        network = linearize(self.original_network(), self.plan)
        if weights is not None:
            self._load(network, weights, "linearized")
        return network

    def merged_network(self, weights: str) -> fx.GraphModule:
        """The plan's merged network with the weights of a file of the run."""
        network = build(self.original_network(), self.plan)
        self._load(network, weights, "merged")
        return network

    def save_network(self, network: nn.Module, name: str, form: Form) -> None:
        """Write the weights of a network of this run's plan, and what they belong to."""
        save_weights(self.to_write(name), network.state_dict(), self._origin(form))

    def _load(self, network: nn.Module, name: str, form: Form) -> None:
        path, wanted = self.to_read(name), self._origin(form)
        require_origin(path, form=form, plan=wanted.plan, original=wanted.original)
        load_weights(network, path)

    def _origin(self, form: Form) -> Origin:
        """Say what weights of this run belong to."""
        original = read_origin(self.to_read("original.safetensors"))
        digest = None if original is None else original.original
        return Origin(form=form, original=digest, plan=self.plan.digest)


def open_run(path: Path) -> RunFolder[Settings] | RunFolder[ShrinkSettings]:
    """Open the run in a folder, whether of `compress` or of `shrink`.

    Raises:
        BadInput: there is no run, or its settings are damaged.
    """
    if not (path / "run.json").is_file():
        raise BadInput(f"{path} holds no run.", "Give the folder of `compress -o`.")
    try:
        read_settings(path / "run.json", Settings)
    except UsageError:
        return RunFolder(path, ShrinkSettings)
    return RunFolder(path, Settings)
