"""Settings as far as a command line gives them, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from dpcompress.errors import UsageError

if TYPE_CHECKING:
    from pydantic import ValidationError
    from pydantic.fields import FieldInfo

    from dpcompress.settings import Shown

M = TypeVar("M")
K = TypeVar("K")


class Setting(NamedTuple):
    """The field that an option sets.

    path: names from the verb's model to the field.
    owners: the models on this path, as they are where no option changes them.
    """

    path: tuple[str, ...]
    owners: tuple[Any, ...]
    field: FieldInfo
    default: Any
    help: str
    panel: str
    shown: Shown


class Asked(Generic[M]):
    """The settings that a command line gives, all or only some of them.

    given: option → its text, its texts, or whether the flag is set.
    """

    def __init__(
        self, model: Any, settings: Mapping[str, Setting], given: Mapping[str, Any]
    ) -> None:
        self.model, self.settings, self.given = model, settings, given

    @property
    def names(self) -> list[str]:
        """The options that were given, as they were typed."""
        return [typed(option, value) for option, value in self.given.items()]

    def build(self, base: M | None = None, **known: Any) -> M:
        """The settings that were asked for.

        Args:
            base: has the values of what is left open; without it, defaults do.
            known: values of fields that replace what was asked for.

        Raises:
            UsageError: a value that a field does not take, or a field without one.
        """
        from pydantic import TypeAdapter, ValidationError

        values = {} if base is None else dict(vars(base))
        for option, value in self.given.items():
            setting, place = self.settings[option], values
            for name, owner in zip(setting.path[:-1], setting.owners, strict=True):
                inner = place.get(name)
                if not isinstance(inner, dict):
                    inner = dict(vars(owner if inner is None else inner))
                place[name] = inner
                place = inner
            place[setting.path[-1]] = value
        try:
            built: M = TypeAdapter(self.model).validate_python(values | known)
        except ValidationError as error:
            raise self._refusal(error) from error
        return built

    def part(self, model: type[K]) -> K:
        """Build a `model` from the options whose fields it shares with these settings."""
        fields = model.model_fields  # type: ignore[attr-defined]
        given = {
            o: v for o, v in self.given.items() if self.settings[o].path[0] in fields
        }
        return Asked[K](model, self.settings, given).build()

    def _refusal(self, error: ValidationError) -> UsageError:
        """Name the first faulty option as it was typed."""
        faults = error.errors()
        options: dict[tuple[int | str, ...], str] = {
            setting.path: option for option, setting in self.settings.items()
        }
        missing = [typed(options[f["loc"]]) for f in faults if f["type"] == "missing"]
        if missing:
            return UsageError(f"This needs {' and '.join(missing)}.", "See --help.")
        place, what = faults[0]["loc"], faults[0]["msg"]
        what = what.removeprefix("Value error, ").removeprefix("Input ")
        for path, option in options.items():
            if place[: len(path)] == path and option in self.given:
                value = self.given[option]
                text = " ".join(value) if isinstance(value, list) else value
                return UsageError(f"{typed(option)} {text}: {what}.", "See --help.")
        return UsageError(f"{what[0].upper()}{what[1:]}.", "See --help.")


def typed(option: str, value: object = None) -> str:
    """Spell an option as a user types it, as in --no-renew for the value False."""
    if option == "model":
        return "MODEL"
    return f"--{'no-' if value is False else ''}{option.replace('_', '-')}"
