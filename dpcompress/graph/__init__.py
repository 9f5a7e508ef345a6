"""torch networks: trace, linearize, merge, and the proof that a merge is exact."""

from dpcompress.graph.build import build
from dpcompress.graph.capture import left_alone
from dpcompress.graph.certificate import Certificate, certify
from dpcompress.graph.decay import Decay, decays, set_share
from dpcompress.graph.fit_merged import FitReport, fit_merged
from dpcompress.graph.linearize import linearize
from dpcompress.graph.merge import merge, merge_unchecked, span_algebra
from dpcompress.graph.norms import with_norms, without_norms
from dpcompress.graph.trace import trace

__all__ = [
    "Certificate",
    "Decay",
    "FitReport",
    "build",
    "certify",
    "decays",
    "fit_merged",
    "left_alone",
    "linearize",
    "merge",
    "merge_unchecked",
    "set_share",
    "span_algebra",
    "trace",
    "with_norms",
    "without_norms",
]
