"""Measuring on another machine: a bundle goes there, its results come back."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import zipapp
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dpcompress import runner
from dpcompress.blueprint import Blueprint
from dpcompress.errors import BadInput
from dpcompress.files import replacing
from dpcompress.latency.build_table import build_table
from dpcompress.latency.frames import method
from dpcompress.latency.workload import TimedGraph, Workload, anchor, network_graph
from dpcompress.onnxio.precision import in_precision
from dpcompress.progress import Progress, silent
from dpcompress.runner import Engine, Target
from dpcompress.runner.bundle import FORMAT, MANIFEST
from dpcompress.runner.results import read_results
from dpcompress.tables import LatencyTable

_ANCHOR = "anchor.onnx"


def write_bundle(
    blueprint: Blueprint,
    path: str | os.PathLike[str],
    *,
    original: bytes,
    target: Target,
    progress: Progress = silent,
) -> int:
    """Write all that `profile` would time into one zip; returns the number of graphs.

    The same arguments give the same bytes.

    Args:
        original: as in `profile`.
        target: its engine need not be installed here; device and threads are chosen
            where the bundle is measured.
    """
    work = Workload(blueprint, target.batch, target.most_copies)
    network = network_graph(original)
    about = {
        "method": method(work.most_copies),
        "most_copies": work.most_copies,
        "batch": work.batch,
        "blueprint": blueprint.digest,
        "limits": blueprint.limits.model_dump(),
        "original": network.subject,
    }
    graphs = (network, *work.graphs)
    return _write(path, about, graphs, target.precision, progress)


def write_networks(
    networks: Mapping[str, bytes],
    path: str | os.PathLike[str],
    *,
    target: Target,
    progress: Progress = silent,
) -> int:
    """Write whole networks (name → ONNX) into one zip, to be timed side by side
    elsewhere; returns their number. `read_results` gives their times by name."""
    graphs = [network_graph(onnx, name) for name, onnx in networks.items()]
    return _write(path, {"batch": target.batch}, graphs, target.precision, progress)


def _write(
    path: str | os.PathLike[str],
    about: dict[str, Any],
    graphs: Sequence[TimedGraph],
    precision: str,
    progress: Progress,
) -> int:
    about = {**about, "graphs": "float16" if precision == "fp16" else "float32"}
    files = {f"graphs/{i:04}.onnx": graph for i, graph in enumerate(graphs)}
    entries = [
        {"subject": graph.subject, "file": file, "bytes": graph.bytes, "kind": graph.kind}
        for file, graph in files.items()
    ]
    manifest = {"format": FORMAT, "about": about, "anchor": _ANCHOR, "graphs": entries}
    with replacing(path) as temporary, zipfile.ZipFile(temporary, "w") as bundle:
        _add(bundle, MANIFEST, json.dumps(manifest, indent=1).encode())
        _add(bundle, _ANCHOR, in_precision(anchor().make(), precision))
        for done, (file, graph) in enumerate(files.items(), 1):
            _add(bundle, file, in_precision(graph.make(), precision))
            progress(done, len(graphs), graph.subject)
    return len(graphs)


def _add(bundle: zipfile.ZipFile, name: str, data: bytes) -> None:
    """Add a file without a date: the same graphs give the same zip."""
    undated = zipfile.ZipInfo(name)
    bundle.writestr(undated, data, zipfile.ZIP_DEFLATED, compresslevel=1)


def table_from_results(
    blueprint: Blueprint, path: str | os.PathLike[str]
) -> LatencyTable:
    """Build the table that `profile` would have made on the machine of the results.

    Raises:
        BadInput: the results are of another network, or some are missing.
    """
    results = read_results(path)
    about = results.header
    try:
        made_for = {key: about[key] for key in ("blueprint", "limits", "method")}
        most = int(about.get("most_copies", Engine.most_copies))
        engine, batch = about["engine"], int(about["batch"])
        original = str(about["original"])
        identity = {str(key): str(value) for key, value in engine.items()}
        identity.update(results.notes)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BadInput(
            f"{path}, line 1: the header has a fault: {error!r}.", "Run the runner again."
        ) from error
    here = {"blueprint": blueprint.digest, "limits": blueprint.limits.model_dump()}
    if made_for != {**here, "method": method(most)}:
        raise BadInput(
            f"{path} holds results of another network, input size, limits or version.",
            "Give the model, --input and limits that the bundle was made with.",
        )
    work = Workload(blueprint, batch, most)
    needed = {original, *(graph.subject for graph in work.graphs)}
    missing = needed - results.times.keys() - results.rejected.keys()
    if missing:
        raise BadInput(
            f"{path} lacks {len(missing)} of {len(needed)} graphs.",
            "Run the same command of the runner again: it goes on where it was.",
        )
    return build_table(work, original, results.times, results.rejected, identity)


def pack_runner(path: str | os.PathLike[str]) -> None:
    """Write the runner as one file, for `python FILE bundle.zip -o results.jsonl`."""
    package = Path(str(runner.__file__)).parents[1]
    with tempfile.TemporaryDirectory() as folder, replacing(path) as temporary:
        there = Path(folder) / package.name
        shutil.copytree(package / "runner", there / "runner", ignore=_only_sources)
        for name in ("__init__.py", "errors.py", "version.py"):
            shutil.copyfile(package / name, there / name)
        zipapp.create_archive(
            folder,
            temporary,
            interpreter="/usr/bin/env python3",
            main="dpcompress.runner.__main__:main",
            compressed=True,
        )


def _only_sources(folder: str, names: list[str]) -> list[str]:
    is_folder = Path(folder).joinpath
    return [
        name
        for name in names
        if name == "__pycache__" or not (name.endswith(".py") or is_folder(name).is_dir())
    ]
