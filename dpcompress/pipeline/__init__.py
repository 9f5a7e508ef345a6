"""Runs of `compress` and `shrink`: the run folder, the steps, and how they resume."""

from dpcompress.pipeline.compress import compress
from dpcompress.pipeline.folder import RunFolder, open_run
from dpcompress.pipeline.result import Result, Side, Speedup, Timing
from dpcompress.pipeline.shrink import shrink
from dpcompress.pipeline.steps import no_bars
from dpcompress.settings import (
    EXAMPLE,
    Scoring,
    Settings,
    ShrinkSettings,
    read_settings,
)

__all__ = [
    "EXAMPLE",
    "Result",
    "RunFolder",
    "Scoring",
    "Settings",
    "ShrinkSettings",
    "Side",
    "Speedup",
    "Timing",
    "compress",
    "no_bars",
    "open_run",
    "read_settings",
    "shrink",
]
