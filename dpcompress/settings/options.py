"""How settings appear among the options of a command line: marks for ``Annotated``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


class Panel:
    """Headings under which --help lists options."""

    MODEL = "Model and data"
    BUDGET = "Budget"
    ENGINE = "Engine"
    SEARCH = "Search and scoring"
    TRAINING = "Training"
    DECISIONS = "Forced decisions (numbers such as 3 or 3,5-7)"
    LIMITS = "More limits"


@dataclass(frozen=True)
class Shown:
    """The way in which a field appears on the command line.

    metavar: stands for the value in --help; "" names its type.
    panel: heading under which --help lists it; "" is that of the model it belongs to.
    argument: whether it is given by its place, without a name.
    hidden: whether the field is not an option.
    """

    metavar: str = ""
    panel: str = ""
    argument: bool = False
    hidden: bool = False


class Options:
    """The fields of a model that are options, and their names.

    Args:
        names: fields that are options under their own names; none means all.
        panel: heading under which --help lists them.
        lead: what each one's help begins with, before a colon.
        base: the values of fields that no option changes; None takes the model's own.
        renamed: options and the paths of their fields, as in score_steps="recipe.steps".
    """

    def __init__(
        self,
        *names: str,
        panel: str = "",
        lead: str = "",
        base: Any = None,
        **renamed: str,
    ) -> None:
        self.paths = {name: name for name in names} | renamed
        self.panel, self.lead, self.base = panel, lead, base


HIDDEN = Shown(hidden=True)
