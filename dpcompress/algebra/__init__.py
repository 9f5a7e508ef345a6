"""Convolution algebra on tensors: compose, add, Dirac, fold norms, move padding, fit."""

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
from dpcompress.algebra.least_squares import ConvFit, FittedConv

__all__ = [
    "AffineConv",
    "ConvFit",
    "FittedConv",
    "add",
    "compose",
    "dirac",
    "norm_factors",
    "pad",
    "regroup",
    "scale",
]
