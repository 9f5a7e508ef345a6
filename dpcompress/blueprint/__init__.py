"""A network as plain data, which of its spans may merge, and a plan for it. No torch."""

from dpcompress.blueprint.chains import find_chains, skips
from dpcompress.blueprint.check_plan import check_plan
from dpcompress.blueprint.data import (
    Blueprint,
    Chain,
    ConvSpec,
    Layer,
    Limits,
    Op,
    Pair,
    Sides,
    Skip,
    Span,
)
from dpcompress.blueprint.legality import (
    Illegal,
    MergedSpan,
    barriers,
    branch_ops,
    candidates,
    examine,
    input_margin,
    legal_spans,
    spans_of,
)
from dpcompress.blueprint.plan import Choice, Plan, keep_everything

__all__ = [
    "Blueprint",
    "Chain",
    "Choice",
    "ConvSpec",
    "Illegal",
    "Layer",
    "Limits",
    "MergedSpan",
    "Op",
    "Pair",
    "Plan",
    "Sides",
    "Skip",
    "Span",
    "barriers",
    "branch_ops",
    "candidates",
    "check_plan",
    "examine",
    "find_chains",
    "input_margin",
    "keep_everything",
    "legal_spans",
    "skips",
    "spans_of",
]
