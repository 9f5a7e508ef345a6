"""What a command does, as plain data: the one place of defaults and checks. No torch."""

from dpcompress.settings.recipe import SCORE, Recipe
from dpcompress.settings.run import (
    EXAMPLE,
    By,
    Metric,
    RunSettings,
    Scoring,
    Settings,
    ShrinkSettings,
    read_settings,
)

__all__ = [
    "EXAMPLE",
    "SCORE",
    "By",
    "Metric",
    "Recipe",
    "RunSettings",
    "Scoring",
    "Settings",
    "ShrinkSettings",
    "read_settings",
]
