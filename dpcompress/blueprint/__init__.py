"""The network as plain data, which of its spans may merge, and plans. No torch."""

from dpcompress.blueprint.activations import own_activation, split_activation
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
from dpcompress.blueprint.examine import Illegal, MergedSpan, examine, input_margin
from dpcompress.blueprint.plan import Choice, Plan, keep_everything
from dpcompress.blueprint.spaces import Space, homes, private_spaces, region, spaces
from dpcompress.blueprint.spans import (
    barriers,
    branch_ops,
    candidates,
    legal_spans,
    spans_of,
)

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
    "Space",
    "Span",
    "barriers",
    "branch_ops",
    "candidates",
    "check_plan",
    "examine",
    "find_chains",
    "homes",
    "input_margin",
    "keep_everything",
    "legal_spans",
    "own_activation",
    "private_spaces",
    "region",
    "skips",
    "spaces",
    "spans_of",
    "split_activation",
]
