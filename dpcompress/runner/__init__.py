"""Measures ONNX graphs on an inference engine.

Everything in this room is valid on Python 3.8 and needs only numpy and one engine, so
that it can be copied to a board (`dpcompress runner`). The engine named torch is the
exception: it needs the whole package. numpy is imported where it is used, because
`--help` reads the fields of Target.
"""

from dpcompress.runner.compare import Ratio, compare, ratio
from dpcompress.runner.engine import ENGINES, Engine, Session
from dpcompress.runner.log import Log
from dpcompress.runner.measure import measure
from dpcompress.runner.measurement import Measurement, Subject
from dpcompress.runner.target import Target
from dpcompress.runner.timing import NETWORKS, OPS, NetworkTiming, OpTiming

__all__ = [
    "ENGINES",
    "NETWORKS",
    "OPS",
    "Engine",
    "Log",
    "Measurement",
    "NetworkTiming",
    "OpTiming",
    "Ratio",
    "Session",
    "Subject",
    "Target",
    "compare",
    "measure",
    "ratio",
]
