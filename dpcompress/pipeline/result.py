"""What a run found: original and compressed network side by side, RUN/result.json."""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from dpcompress.blueprint.data import Frozen
from dpcompress.pipeline.closed_loop import Loop
from dpcompress.runner import Measurement, Ratio, ratio

_DRIFT = 0.1  # a change of the machine's speed that a user should know of


class Timing(Frozen):
    """The measured milliseconds per inference.

    spread_ms: half the interquartile range.
    samples: timed samples that count.
    disturbed: samples thrown away because other programs got in the way.
    """

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


class Speedup(Frozen):
    """The original's time over the compressed network's, taken round by round.

    low, high: the 95 % confidence interval of the median.
    """

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, original: Measurement, compressed: Measurement) -> Self:
        found: Ratio = ratio(original, compressed)
        return cls(median=found.median, low=found.low, high=found.high)


class Side(Frozen):
    """The figures of one of the two networks.

    layers: convolutions of the chains.
    parameters, macs: of the whole network; macs are those of one image.
    accuracy: top-1 on the test images, 0..1.
    uncorrected_ms: by the latency table as its ops were measured, before whole networks
        corrected it; None if that is not known.
    predicted_ms: by latency.csv, as in plan.json, fixed part included; None without a
        table.
    corrected_ms: predicted_ms, corrected by the planned networks that a closed loop had
        measured before this one; None without a loop.
    measured: the network itself, at the end of the run.
    """

    layers: int
    parameters: int
    macs: int
    accuracy: float
    uncorrected_ms: float | None
    predicted_ms: float | None
    corrected_ms: float | None
    measured: Timing


class Result(Frozen):
    """The two networks, measured interleaved in one process on `engine`.

    Predictions are about the machine as it was when the latency table was made. To
    compare one with a time measured later, it is scaled by what the original takes now
    over what it took then.

    original_then_ms: what the original took when the latency table was made.
    expected_ms: what the compressed network was expected to take now: its corrected_ms,
        or else predicted_ms, times the slowdown of the original.
    prediction_error: expected_ms over the measured time of the compressed network, minus
        1; None, as expected_ms, without a table.
    loop: how the plan was chosen by measuring planned networks; None if it was not.
    """

    original: Side
    compressed: Side
    speedup: Speedup
    original_then_ms: float | None
    expected_ms: float | None
    prediction_error: float | None
    loop: Loop | None
    budget_ms: float | None
    test_images: int
    engine: str
    batch: int
    threads: int | None

    @classmethod
    def of(
        cls,
        original: Side,
        compressed: Side,
        original_then_ms: float | None,
        **rest: Any,
    ) -> Self:
        """The result, with what was predicted set against what was measured."""
        expected_ms = error = None
        ms = compressed.corrected_ms
        if ms is None:
            ms = compressed.predicted_ms
        if ms is not None and original_then_ms:
            expected_ms = ms * original.measured.median_ms / original_then_ms
            error = expected_ms / compressed.measured.median_ms - 1
        return cls(
            original=original,
            compressed=compressed,
            original_then_ms=original_then_ms,
            expected_ms=expected_ms,
            prediction_error=error,
            **rest,
        )

    @property
    def slowdown(self) -> float | None:
        """The original's time now over its time then; None without a table."""
        if not self.original_then_ms:
            return None
        return self.original.measured.median_ms / self.original_then_ms

    @property
    def sentences(self) -> list[str]:
        """The findings, in words."""
        speedup, slowdown = self.speedup, self.slowdown
        found = [
            f"{speedup.median:.2f} times as fast ({speedup.low:.2f} to "
            f"{speedup.high:.2f}) on {self.engine}, batch {self.batch}, {self.threads} "
            f"threads; accuracy on {self.test_images} test images."
        ]
        if slowdown is not None and self.expected_ms is not None:
            found.append(
                "Predictions are of the machine when the latency table was made. The "
                f"original now takes {slowdown:.0%} of its time then, so "
                f"{self.expected_ms:.3f} ms were expected of the compressed network "
                "before it was measured at all: that is off by "
                f"{self.prediction_error:+.1%}."
            )
        if self.loop is not None:
            found.append(self.loop.sentence)
        return found

    @property
    def warnings(self) -> list[str]:
        """The reasons to doubt the numbers, in words."""
        found = []
        slowdown, timing = self.slowdown, self.compressed.measured
        if slowdown is not None and abs(slowdown - 1) > _DRIFT:
            found.append(
                f"This machine is {abs(slowdown - 1):.0%} "
                f"{'slower' if slowdown > 1 else 'faster'} now than when the latency "
                "table was made: a budget in ms is about then."
            )
        if timing.disturbed > timing.samples:
            found.append(
                "Other programs were using the processor: most timings were disturbed, "
                "and the times above are less certain than they look."
            )
        return found


def parameters(network: nn.Module) -> int:
    """Count all parameters, trainable or frozen."""
    return sum(p.numel() for p in network.parameters())


def macs(network: nn.Module, input_shape: tuple[int, int, int]) -> int:
    """Count multiply-accumulates of convolutions and matrix products for one image."""
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        network(torch.zeros(1, *input_shape))
    return counter.get_total_flops() // 2
