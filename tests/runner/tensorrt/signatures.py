"""What a version of TensorRT's Python API has: read from its signature lines."""

import re
from dataclasses import dataclass, field
from pathlib import Path

VERSIONS = ("8.5.3.1", "10.16.1.11", "11.4.0.106")


def signature_file(shared: Path, version: str) -> Path:
    return shared / "gpu" / "tensorrt_api" / f"{version}.txt"


@dataclass(frozen=True)
class Call:
    """One overload: names of its parameters without self, and how many must be given."""

    parameters: tuple[str, ...]
    required: int
    returns: str

    def takes(self, count: int, keywords: tuple[str, ...] = ()) -> bool:
        rest = self.parameters[count:]
        needed = [p for p in self.parameters[: self.required] if p in rest]
        known = count <= len(self.parameters) and set(keywords) <= set(rest)
        return known and set(needed) <= set(keywords)


@dataclass
class Class:
    """members: name → its value, for enums; properties: name → whether it can be set."""

    members: dict[str, int] = field(default_factory=dict)
    properties: dict[str, bool] = field(default_factory=dict)
    calls: dict[str, list[Call]] = field(default_factory=dict)
    constants: set[str] = field(default_factory=set)


class Api:
    """classes: those with a description; named: those that are only listed by name."""

    def __init__(self, text: str) -> None:
        self.version = text.split()[1].rstrip(":")
        self.classes: dict[str, Class] = {}
        self.named: set[str] = set()
        current = None
        for line in text.splitlines():
            if head := re.match(r"== (\w+) \((?:class|enum)", line):
                current = self.classes.setdefault(head[1], Class())
            elif line.startswith("=="):
                current = None
            elif current is not None and line.startswith("  "):
                _add(current, line.strip())
            elif line.startswith("  "):
                self.named.update(line.split())

    def fault(self, use: "Use") -> str:
        """What is wrong with using this in this version, "" if nothing is."""
        owner = self.classes.get(use.owner)
        if owner is None:
            return "" if use.owner in self.named else f"no class {use.owner}"
        if use.name is None:
            return ""
        place = f"{use.owner}.{use.name}"
        if use.count is None:
            has = {*owner.members, *owner.properties, *owner.constants, *owner.calls}
            fault = "" if use.name in has else f"no {place}"
            if use.stored and not owner.properties.get(use.name, False):
                return fault or f"{place} cannot be set"
            return fault
        calls = owner.calls.get(use.name, [])
        if any(call.takes(use.count, use.keywords) for call in calls):
            return ""
        return f"no {place} of {use.count} arguments and {use.keywords}"


def _add(owner: Class, line: str) -> None:
    if match := re.fullmatch(r"(\w+) = (-?\d+)", line):
        owner.members[match[1]] = int(match[2])
    elif match := re.match(r"(\w+) = |(\w+): nested", line):
        owner.constants.add(match[1] or match[2])
    elif match := re.match(r"(\w+): property", line):
        owner.properties[match[1]] = "(read only)" not in line
    elif match := re.fullmatch(r"(\w+)\((.*)\)(?: -> (.+))?", line):
        parts = _split(match[2])
        parts = parts[1:] if parts and parts[0].startswith("self") else parts
        names = tuple(re.split(r"[:=]", part)[0].strip() for part in parts)
        required = sum(1 for part in parts if "=" not in part)
        call = Call(names, required, match[3] or "")
        owner.calls.setdefault(match[1], []).append(call)


def _split(text: str) -> list[str]:
    """At commas outside brackets."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter in "[(") - (letter in "])")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts if part.strip()]


@dataclass(frozen=True)
class Use:
    """One place in the backend: `owner.name`, called with `count` arguments (None: not
    called), or assigned to (`stored`)."""

    owner: str
    name: str | None = None
    count: int | None = None
    keywords: tuple[str, ...] = ()
    stored: bool = False
