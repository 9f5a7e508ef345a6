"""Convolution algebra on tensors: compose, add, Dirac, fold norms, move padding."""

from dpcompress.algebra.affine import (
    AffineConv,
    add,
    compose,
    dirac,
    norm_factors,
    pad,
    regroup,
    scale,
)

__all__ = [
    "AffineConv",
    "add",
    "compose",
    "dirac",
    "norm_factors",
    "pad",
    "regroup",
    "scale",
]
