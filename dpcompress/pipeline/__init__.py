"""The run folder: steps, digests, resume; what `compress` and `shrink` do."""

from dpcompress.pipeline.compress import compress
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
    "Scoring",
    "Settings",
    "ShrinkSettings",
    "Side",
    "Speedup",
    "Timing",
    "compress",
    "no_bars",
    "read_settings",
    "shrink",
]
