"""How long to measure: settings of `measure` and of `compare`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar


@dataclass(frozen=True)
class OpTiming:
    """The settings of `measure`, which times many small ops.

    A sample is one inference, with the caches as the other ops left them.

    precision: an op is finished when half the 95 % confidence interval of its median is
        at most this share of the median.
    min_samples, max_samples: undisturbed samples of an op, at least and at most.
    max_disturbed: disturbed samples after which an op is finished.
    max_seconds: time spent on an op after which it is finished; slow ops get more
        (`SubjectTimer.max_seconds`), and an op with too few undisturbed samples is given
        its least disturbed ones. Also the time after which no further session is built.
    max_waited: a sample is disturbed if a thread waited for a core for more than this
        share of it.
    anchor_tolerance: samples are disturbed if the anchor is slower than usual by more
        than this share.
    sessions: sessions built of each op, at most. They take turns.
    group_bytes: memory of the sessions that are held at the same time, at most, as
        estimated by `Subject.bytes`; `measure` takes half of what is available if that
        is less.
    group_sessions: sessions that are held at the same time, at most.
    seed: of the order in which ops are timed.
    """

    sample_ms: ClassVar[float] = 0.0
    cold: ClassVar[bool] = True

    precision: float = 0.01
    min_samples: int = 300
    max_samples: int = 600
    max_disturbed: int = 400
    max_seconds: float = 0.3
    max_waited: float = 0.01
    anchor_tolerance: float = 1.0
    sessions: int = 3
    group_bytes: int = 12_000_000_000
    group_sessions: int = 1200
    seed: int = 0

    def within(self, max_bytes: int) -> OpTiming:
        """The same settings with at most `max_bytes` of sessions held at once."""
        return replace(self, group_bytes=min(self.group_bytes, max_bytes))


@dataclass(frozen=True)
class NetworkTiming:
    """The settings of `compare`, which times a few whole networks in rounds.

    A round is one sample of each network, with warm caches.

    sample_ms: length of a sample, at least; it holds at least one inference.
    precision: timing ends when half the 95 % confidence interval of every network's
        median is at most this share of the median.
    min_rounds, max_rounds: undisturbed rounds, at least and at most.
    max_disturbed: disturbed rounds after which timing ends.
    min_seconds: duration of the timing, at least: a machine may slow down some of the
        networks for seconds at a time. It outranks `max_rounds` and `max_disturbed`.
    max_seconds: duration of the timing, at most. Also the time after which no further
        session of a network is built.
    max_waited: a round is disturbed if a thread waited for a core for more than this
        share of one of its samples.
    sessions: sessions built of each network, at most. They take turns.
    seed: of the order of the networks in a round.
    """

    cold: ClassVar[bool] = False

    sample_ms: float = 2.0
    precision: float = 0.01
    min_rounds: int = 25
    max_rounds: int = 80
    max_disturbed: int = 40
    min_seconds: float = 3.0
    max_seconds: float = 30.0
    max_waited: float = 0.01
    sessions: int = 3
    seed: int = 0


OPS = OpTiming()
NETWORKS = NetworkTiming()
