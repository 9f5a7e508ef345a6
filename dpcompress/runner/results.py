"""The results of a bundle: a file of JSON lines.

The header comes first, then a line for every round of samples and one for every graph as
soon as it is finished, so that a killed run goes on where it was. A last line without its
line break was cut off: it is ignored, and measured again.
"""

from __future__ import annotations

import errno
import json
import os
from types import TracebackType
from typing import (
    Any,
    Dict,
    List,
    Mapping,
    NamedTuple,
    Optional,
    Tuple,
    Type,
    Union,
)

from dpcompress.errors import BadInput, BadTable, CannotWrite
from dpcompress.runner.measurement import Measurement

FORMAT = "dpcompress results 1"
NUMBERS = ("median_ms", "p90_ms", "spread_ms", "error_ms", "samples", "disturbed")

Path = Union[str, "os.PathLike[str]"]


class Results(NamedTuple):
    """The content of a results file.

    header: `about` of the bundle, its digest, and the engine's identity.
    times: finished measurements by subject.
    rejected: by subject, why the engine does not build it.
    samples_ms: undisturbed samples by subject, finished or not.
    notes: `Engine.notes` at the end of the last run.
    """

    header: Dict[str, Any]
    times: Dict[str, Measurement]
    rejected: Dict[str, BadInput]
    samples_ms: Dict[str, List[float]]
    notes: Dict[str, str]


def read_results(path: Path) -> Results:
    """Read a results file, of a finished run or not.

    Raises:
        BadTable: not such a file; says which line.
    """
    lines, _ = _whole_lines(path)
    if not lines:
        raise BadTable("there are no results.", "Run the runner.", path=path)
    header = _parsed(path, 1, lines[0])
    if header.get("format") != FORMAT:
        fault = "this is not a file of results."
        raise BadTable(fault, "Name what the runner wrote.", path=path, row=1)
    results = Results(header, {}, {}, {}, {})
    for row, line in enumerate(lines[1:], 2):
        found = _parsed(path, row, line)
        try:
            _read_line(found, results)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise _faulty(path, row, repr(error)) from error
    return results


def _read_line(found: Dict[str, Any], results: Results) -> None:
    if "windows_ms" in found:
        for subject, samples_ms in found["windows_ms"].items():
            results.samples_ms.setdefault(subject, []).extend(map(float, samples_ms))
        return
    if "notes" in found:
        results.notes.update({str(k): str(v) for k, v in found["notes"].items()})
        return
    subject = str(found["subject"])
    if "rejected" in found:
        told = BadInput(str(found["rejected"]), str(found["remedy"]))
        results.rejected[subject] = told
    else:
        results.times[subject] = measurement_of(found)


def measurement_of(found: Dict[str, Any]) -> Measurement:
    """Make a measurement from a JSON object with its `NUMBERS`.

    Raises:
        KeyError, TypeError, ValueError: a number is missing or impossible.
    """
    median, p90, spread, error = (float(found[name]) for name in NUMBERS[:4])
    samples, disturbed = (int(found[name]) for name in NUMBERS[4:])
    if not 0 < median < float("inf") or not 0 <= spread < float("inf") or samples < 1:
        raise ValueError("a time is not a positive number")
    return Measurement(median, p90, spread, error, samples, disturbed)


class ResultsLog:
    """The `Log` in a results file; it goes on with a file of the same header.

    Raises:
        BadInput: the file holds results of something else, or cannot be written.
    """

    def __init__(self, path: Path, header: Dict[str, Any]) -> None:
        self.path = str(path)
        header = {"format": FORMAT, **header}
        kept = 0
        self.found = Results(header, {}, {}, {}, {})
        if os.path.exists(self.path):
            lines, kept = _whole_lines(path)
            if lines:
                self.found = read_results(path)
        if self.found.header != header:
            other = sorted(
                key
                for key in {*header, *self.found.header}
                if header.get(key) != self.found.header.get(key)
            )
            raise BadInput(
                f"{self.path} holds results of another run ({', '.join(other)} differ).",
                "Name another file for these.",
            )
        try:
            self._file = open(self.path, "ab", buffering=0)  # noqa: SIM115 (see close)
            self._file.truncate(kept)
        except OSError as error:
            raise self._unwritable(error) from error
        if not kept:
            self._write(header)

    def known(self, key: str) -> Optional[Measurement]:
        return self.found.times.get(key)

    def samples(self, key: str) -> List[float]:
        return self.found.samples_ms.get(key, [])

    def add_samples(self, samples_ms: Mapping[str, float]) -> None:
        """Append a round. It survives a kill of the process, not a power failure: the
        disk is not waited for."""
        rounded = {key: [round(ms, 6)] for key, ms in samples_ms.items()}
        self._write({"windows_ms": rounded}, sync=False)

    def finish(self, key: str, time: Measurement) -> None:
        numbers = {name: getattr(time, name) for name in NUMBERS}
        self._write({"subject": key, **numbers})

    def reject(self, key: str, error: BadInput) -> None:
        self._write({"subject": key, "rejected": error.message, "remedy": error.remedy})

    def note(self, notes: Dict[str, str]) -> None:
        if notes:
            self._write({"notes": notes})

    def _write(self, value: Dict[str, Any], sync: bool = True) -> None:
        line = json.dumps(value).encode() + b"\n"
        try:
            if self._file.write(line) < len(line):  # the next byte would tell why
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            if sync:
                os.fsync(self._file.fileno())
        except OSError as error:
            raise self._unwritable(error) from error

    def _unwritable(self, error: OSError) -> CannotWrite:
        return CannotWrite(
            f"{self.path} cannot be written: {error.strerror}.",
            "Free some space or choose another folder; what is finished is kept.",
        )

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> ResultsLog:
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        self.close()


def _whole_lines(path: Path) -> Tuple[Tuple[str, ...], int]:
    """Read the lines that end with a line break; returns them and their bytes."""
    try:
        with open(path, "rb") as file:
            data = file.read()
        kept = data.rfind(b"\n") + 1
        return tuple(data[:kept].decode().splitlines()), kept
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise _faulty(path, data[: error.start].count(b"\n") + 1, "no text") from error


def _parsed(path: Path, row: int, line: str) -> Dict[str, Any]:
    try:
        found = json.loads(line)
    except ValueError as error:
        raise _faulty(path, row, "it is not JSON") from error
    if not isinstance(found, dict):
        raise _faulty(path, row, "it is not an object")
    return found


def _faulty(path: Path, row: int, why: str) -> BadTable:
    remedy = "Delete the line, to measure it again, and run the runner once more."
    return BadTable(f"the line has a fault: {why}.", remedy, path=path, row=row)
