"""torch networks: trace, linearize, merge, and the proof that a merge is exact."""

from dpcompress.graph.certificate import Certificate, certify
from dpcompress.graph.decay import Decay, decays, set_share
from dpcompress.graph.linearize import linearize, trace
from dpcompress.graph.merge import merge, merge_unchecked, span_algebra

__all__ = [
    "Certificate",
    "Decay",
    "certify",
    "decays",
    "linearize",
    "merge",
    "merge_unchecked",
    "set_share",
    "span_algebra",
    "trace",
]
