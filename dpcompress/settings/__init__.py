"""What a command does, as plain data: the one place of defaults and checks. No torch."""

from dpcompress.runner.target import Target
from dpcompress.settings.network import (
    INPUT_FIELD,
    MODEL_ARGS_FIELD,
    Channels,
    DataOptions,
    ModelArgs,
    ModelOptions,
    Size,
)
from dpcompress.settings.options import (
    Options,
    Panel,
    Shown,
)
from dpcompress.settings.recipe import FINETUNE, SCORE, Recipe
from dpcompress.settings.run import (
    BUDGET_FIELD,
    EXAMPLE,
    By,
    LimitOptions,
    RunSettings,
    Settings,
    ShrinkSettings,
    TargetOptions,
    Tuning,
    changed,
    read_settings,
    seeded,
    verb_of,
)
from dpcompress.settings.scoring import SCORE_IMAGES, Executor, Metric, Scoring, Workers
from dpcompress.settings.solving import Caps, Decisions

__all__ = [
    "BUDGET_FIELD",
    "MODEL_ARGS_FIELD",
    "Caps",
    "Decisions",
    "ModelArgs",
    "EXAMPLE",
    "FINETUNE",
    "INPUT_FIELD",
    "SCORE",
    "SCORE_IMAGES",
    "By",
    "Channels",
    "DataOptions",
    "Executor",
    "LimitOptions",
    "Metric",
    "ModelOptions",
    "Options",
    "Panel",
    "Recipe",
    "RunSettings",
    "Scoring",
    "Settings",
    "ShrinkSettings",
    "Shown",
    "Size",
    "Target",
    "TargetOptions",
    "Tuning",
    "Workers",
    "changed",
    "read_settings",
    "seeded",
    "verb_of",
]
