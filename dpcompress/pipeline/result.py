"""What a run found: original and compressed network side by side, RUN/result.json."""

from __future__ import annotations

from typing import Any, Self

import torch
from pydantic import BaseModel, ConfigDict
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from dpcompress.pipeline.closed_loop import Loop
from dpcompress.runner import Measurement, Ratio, ratio


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Timing(_Frozen):
    """Measured milliseconds per inference; spread: half the interquartile range;
    disturbed: windows that were thrown away because other programs got in the way."""

    median_ms: float
    p90_ms: float
    spread_ms: float
    samples: int
    disturbed: int

    @classmethod
    def of(cls, measurement: Measurement) -> Self:
        return cls(
            median_ms=measurement.median_ms,
            p90_ms=measurement.p90_ms,
            spread_ms=measurement.spread_ms,
            samples=measurement.samples,
            disturbed=measurement.disturbed,
        )


class Speedup(_Frozen):
    """Original over compressed, round by round, with the median's 95 % confidence."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, original: Measurement, compressed: Measurement) -> Self:
        found: Ratio = ratio(original, compressed)
        return cls(median=found.median, low=found.low, high=found.high)


class Side(_Frozen):
    """One of the two networks.

    layers: convolutions of the chains; parameters and macs (of one image): the whole
    network's; accuracy: top-1 on the test images, 0..1.
    predicted_ms: for the machine as it was when the table was measured.
    """

    layers: int
    parameters: int
    macs: int
    accuracy: float
    predicted_ms: float | None
    measured: Timing


class Result(_Frozen):
    """Both networks, measured interleaved in one process on `engine`.

    predicted_now_ms: what `compressed` is predicted to take on the machine as it is now:
        its predicted_ms times what the original takes now, over what it took when the
        table was measured. None if that is unknown.
    prediction_error: predicted_now_ms over the measured time, minus 1.
    loop: None where no planned network was measured for the plan.
    """

    original: Side
    compressed: Side
    speedup: Speedup
    predicted_now_ms: float | None
    prediction_error: float | None
    loop: Loop | None
    budget_ms: float | None
    test_images: int
    engine: str
    batch: int
    threads: int | None

    @classmethod
    def of(cls, original: Side, compressed: Side, **rest: Any) -> Self:
        """The result, with what was predicted set against what was measured."""
        then_ms, now_ms = original.predicted_ms, original.measured.median_ms
        expected_ms = error = None
        if then_ms and compressed.predicted_ms is not None:
            expected_ms = compressed.predicted_ms * now_ms / then_ms
            error = expected_ms / compressed.measured.median_ms - 1
        return cls(
            original=original,
            compressed=compressed,
            predicted_now_ms=expected_ms,
            prediction_error=error,
            **rest,
        )


def parameters(network: nn.Module) -> int:
    """Number of trainable values."""
    return sum(p.numel() for p in network.parameters())


def macs(network: nn.Module, input_shape: tuple[int, int, int]) -> int:
    """Multiply-accumulates of convolutions and matrix products for one image."""
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        network(torch.zeros(1, *input_shape))
    return counter.get_total_flops() // 2
