"""Record what the installed TensorRT's Python API has, in the form of signatures.py.

    python -m tests.runner.tensorrt.record        # writes api/VERSION.json
    python -m tests.runner.tensorrt.record -      # prints it

It reads the bindings only, so it needs no GPU.
"""

import importlib
import inspect
import json
import re
import sys

from tests.runner.tensorrt.signatures import FOLDER, Entry
from tests.runner.tensorrt.uses import source, uses


def describe(kind: type) -> dict[str, Entry]:
    """Every public name of a class or an enum, but the layers that a network can add."""
    members = getattr(kind, "__members__", None)
    if members:
        return {name: int(value) for name, value in members.items()}
    found: dict[str, Entry] = {}
    for name in dir(kind):
        if name != "__init__" and name.startswith(("_", "add_")):
            continue
        raw = inspect.getattr_static(kind, name)
        if isinstance(raw, property):
            found[name] = "property" if raw.fset else "read only"
        elif calls := _overloads(name, raw.__doc__ or ""):
            found[name] = calls
        elif name != "__init__":
            found[name] = "constant"
    return found


def _overloads(name: str, doc: str) -> list[list[str]]:
    """Parameters of each signature line, which pybind11 puts into docstrings."""
    lines = re.findall(rf"^\s*(?:\d+\. )?{name}\(self(.*)\) -> ", doc, re.MULTILINE)
    return [[_parameter(text) for text in _split(line)[1:]] for line in lines]


def _parameter(text: str) -> str:
    return re.split(r"[:=]", text)[0].strip() + ("=" if "=" in text else "")


def _split(text: str) -> list[str]:
    """`text` cut at its commas outside brackets."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter in "[(") - (letter in "])")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return parts


def main() -> None:
    trt = importlib.import_module("tensorrt")
    owners = sorted({use.owner for use in uses(source())})
    recorded = {
        name: describe(getattr(trt, name)) for name in owners if hasattr(trt, name)
    }
    classes = ",\n".join(
        f' "{owner}": {{\n'
        + ",\n".join(_line(*entry) for entry in entries.items())
        + "\n }"
        for owner, entries in recorded.items()
    )
    text = f"{{\n{classes}\n}}\n"
    if sys.argv[1:] == ["-"]:
        sys.stdout.write(text)
    else:
        (FOLDER / f"{trt.__version__}.json").write_text(text, encoding="utf-8")


def _line(name: str, entry: Entry) -> str:
    return f"  {json.dumps(name)}: {json.dumps(entry)}"


if __name__ == "__main__":
    main()
