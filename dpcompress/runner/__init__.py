"""Measures ONNX graphs on an inference engine. No torch; valid on Python 3.8.

Needs numpy and one engine, so that it can be copied to a board.
"""

from dpcompress.runner.comparison import NETWORKS, Ratio, compare, ratio
from dpcompress.runner.engine import ENGINES, Engine, Session
from dpcompress.runner.log import Log
from dpcompress.runner.sampling import measure
from dpcompress.runner.series import OPS, Measurement, Sampling, Subject
from dpcompress.runner.target import Target, open_engine

__all__ = [
    "ENGINES",
    "NETWORKS",
    "OPS",
    "Engine",
    "Log",
    "Measurement",
    "Ratio",
    "Sampling",
    "Session",
    "Subject",
    "Target",
    "compare",
    "measure",
    "open_engine",
    "ratio",
]
