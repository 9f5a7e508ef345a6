"""How `compress` and `shrink` begin a run, or go on with one."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from dpcompress.cli.asked import Asked
from dpcompress.errors import UsageError

if TYPE_CHECKING:
    from dpcompress.settings import RunSettings

S = TypeVar("S", bound="RunSettings")


def new_run(asked: Asked[S]) -> S:
    """The settings of a new run, with what is left open taken from the model.

    Raises:
        UsageError: a value that a setting does not take, or a setting without one.
    """
    from dpcompress.cli.loading import prepared
    from dpcompress.models import default_input
    from dpcompress.settings import ModelOptions, seeded

    model = asked.part(ModelOptions)
    size = model.input or default_input(model.model)
    settings = asked.build(input=size)
    return seeded(prepared(settings, settings, size), settings.seed)


def refuse_without_model(asked: Asked[S], *allowed: str) -> None:
    """Refuse options of a run, unless `allowed`, where no MODEL is given.

    Raises:
        UsageError: one that is not `allowed` was given.
    """
    ignored = [name for name in asked.names if name not in allowed]
    if ignored:
        raise UsageError(
            f"{', '.join(ignored)} without a MODEL.",
            "Name the model, or leave all of it out.",
        )
