"""The run folder: steps, digests, resume; what `compress` does."""

from dpcompress.pipeline.compress import compress, no_bars
from dpcompress.pipeline.result import Result, Side, Speedup, Timing
from dpcompress.pipeline.settings import EXAMPLE, Scoring, Settings, read_settings

__all__ = [
    "EXAMPLE",
    "Result",
    "Scoring",
    "Settings",
    "Side",
    "Speedup",
    "Timing",
    "compress",
    "no_bars",
    "read_settings",
]
