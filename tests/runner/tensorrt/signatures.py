"""What a version of TensorRT's Python API has: read from api/VERSION.json.

Each file holds the classes and enums that the backend uses. After a name stands an enum
member's value, "property", "read only", "constant", or the parameters of every overload
without self ("name=" where one may be left out). A class that is null exists, but what it
has was not recorded. record.py writes the file of the TensorRT that is installed.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path

Entry = int | str | list[list[str]]
VERSIONS = ("8.5.3.1", "10.16.1.11", "11.4.0.106")
FOLDER = Path(__file__).parent / "api"


@dataclass(frozen=True)
class Call:
    """One overload: names of its parameters without self, and which must be given."""

    parameters: tuple[str, ...]
    required: frozenset[str]

    def takes(self, count: int, keywords: tuple[str, ...] = ()) -> bool:
        rest = self.parameters[count:]
        known = count <= len(self.parameters) and set(keywords) <= set(rest)
        return known and self.required.intersection(rest) <= set(keywords)


@dataclass
class Class:
    """members: name → its value, for enums; properties: name → whether it can be set."""

    members: dict[str, int] = field(default_factory=dict)
    properties: dict[str, bool] = field(default_factory=dict)
    calls: dict[str, list[Call]] = field(default_factory=dict)
    constants: set[str] = field(default_factory=set)

    @property
    def names(self) -> set[str]:
        return {*self.members, *self.properties, *self.calls, *self.constants}

    def add(self, name: str, entry: Entry) -> None:
        if isinstance(entry, int):
            self.members[name] = entry
        elif isinstance(entry, list):
            self.calls[name] = [_call(parameters) for parameters in entry]
        elif entry == "constant":
            self.constants.add(name)
        else:
            self.properties[name] = {"property": True, "read only": False}[entry]


def _call(parameters: list[str]) -> Call:
    names = tuple(text.rstrip("=") for text in parameters)
    return Call(names, frozenset(text for text in parameters if not text.endswith("=")))


class Api:
    """classes: by name; None where only the name was recorded."""

    def __init__(
        self, version: str, recorded: dict[str, dict[str, Entry] | None]
    ) -> None:
        self.version = version
        self.classes: dict[str, Class | None] = {}
        for owner, entries in recorded.items():
            if entries is None:
                self.classes[owner] = None
                continue
            described = self.classes[owner] = Class()
            for name, entry in entries.items():
                described.add(name, entry)

    @classmethod
    def recorded(cls, version: str) -> "Api":
        text = (FOLDER / f"{version}.json").read_text(encoding="utf-8")
        return cls(version, json.loads(text))

    def __getitem__(self, owner: str) -> Class:
        """The class of this name, which must have been recorded."""
        described = self.classes[owner]
        assert described is not None, f"{owner} of {self.version} was not recorded"
        return described

    def fault(self, use: "Use") -> str:
        """What is wrong with using this in this version, "" if nothing is."""
        if use.owner not in self.classes:
            return f"no class {use.owner}"
        owner = self.classes[use.owner]
        if owner is None or use.name is None:
            return ""
        place = f"{use.owner}.{use.name}"
        if use.count is None:
            if use.name not in owner.names:
                return f"no {place}"
            settable = owner.properties.get(use.name, False)
            return f"{place} cannot be set" if use.stored and not settable else ""
        calls = owner.calls.get(use.name, [])
        if any(call.takes(use.count, use.keywords) for call in calls):
            return ""
        return f"no {place} of {use.count} arguments and {use.keywords}"


@dataclass(frozen=True)
class Use:
    """One place in the backend: `owner.name`, called with `count` arguments (None: not
    called), or assigned to (`stored`)."""

    owner: str
    name: str | None = None
    count: int | None = None
    keywords: tuple[str, ...] = ()
    stored: bool = False
