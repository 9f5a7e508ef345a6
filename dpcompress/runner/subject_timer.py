"""Times one subject: its sessions, their samples, when it has enough of them."""

from __future__ import annotations

import time
from statistics import median
from typing import List, Sequence, Tuple, Union

from dpcompress.runner.core_wait import CoreWait
from dpcompress.runner.measurement import Measurement, Subject
from dpcompress.runner.session_timer import Sample, SessionTimer
from dpcompress.runner.statistics import median_interval
from dpcompress.runner.timing import NetworkTiming, OpTiming

SLOWDOWN_PERIOD_S = 0.5  # one slowdown per kind of op is estimated for each period
SLOW_SAMPLES = 30  # a slow op gets time for this many samples
SLOW_FACTOR = 40  # a slow op gets at most this many times `OpTiming.max_seconds`
LEAST_SAMPLES = 5  # a measurement has at least as many, however long one takes
# An engine may start a thread per core for each session. Once this process has so many
# threads, further subjects get one session each.
MAX_THREADS = 4000


def start_sessions(
    subject: Subject, timing: Union[OpTiming, NetworkTiming], wait: CoreWait
) -> List[SessionTimer]:
    """Build and warm up as many sessions of a subject as `timing` allows, at least one.

    Raises:
        BadInput: the engine rejects the subject.
    """
    found: List[SessionTimer] = []
    began = time.perf_counter()
    while len(found) < timing.sessions:
        found.append(start_session(subject, timing, wait))
        slow = time.perf_counter() - began > timing.max_seconds
        if slow or wait.threads() > MAX_THREADS:
            break
    return found


def start_session(
    subject: Subject, timing: Union[OpTiming, NetworkTiming], wait: CoreWait
) -> SessionTimer:
    """Build and warm up one session of a subject.

    Raises:
        BadInput: the engine rejects the subject.
    """
    return SessionTimer(subject.load(), timing.sample_ms, wait, timing.cold)


class SessionTimes:
    """A session of a subject and its undisturbed samples.

    samples_ms: with the slowdown that all subjects shared divided out.
    periods: for each sample, the number of the `SLOWDOWN_PERIOD_S` that it was taken in.
    usual_ms: what a sample usually takes.
    """

    def __init__(self, timer: SessionTimer) -> None:
        self.timer = timer
        self.samples_ms: List[float] = []
        self.periods: List[int] = []
        self.usual_ms = timer.fastest_ms

    def add(self, sample_ms: float) -> None:
        """Add a sample that was taken just now."""
        self.samples_ms.append(sample_ms)
        self.periods.append(int(time.perf_counter() / SLOWDOWN_PERIOD_S))
        count = len(self.samples_ms)
        if count < 10 or count % 10 == 0:
            self.usual_ms = median(self.samples_ms)


class SubjectTimer:
    """Takes samples of one subject from its sessions in turn.

    Args:
        earlier_ms: undisturbed samples of an interrupted call.

    Raises:
        BadInput: the engine rejects the subject.
    """

    def __init__(
        self,
        subject: Subject,
        timing: OpTiming,
        wait: CoreWait,
        earlier_ms: Sequence[float] = (),
    ) -> None:
        self.subject, self.timing = subject, timing
        timers = start_sessions(subject, timing, wait)
        self.sessions = [SessionTimes(timer) for timer in timers]
        self.earlier_ms = list(earlier_ms)
        self.disturbed: List[Sample] = []
        self.seconds = sum(self.earlier_ms) / 1e3
        self.due = 0.0

    @property
    def usual_ms(self) -> float:
        """The usual time of a sample of the session that is next."""
        return self.sessions[0].usual_ms

    def sample(self) -> Tuple[SessionTimes, Sample]:
        """Take a sample of the next session; returns both."""
        session = self.sessions[0]
        self.sessions.append(self.sessions.pop(0))
        sample = session.timer.sample()
        self.seconds += sample.ms * session.timer.repetitions / 1e3
        return session, sample

    def is_due(self, round_ms: float) -> bool:
        """Whether to take part in a round that spends `round_ms` on a subject.

        A slow subject takes part now and then, so that all subjects are finished at
        about the same time: each round adds its share to `due`, and a sample costs 1.
        """
        share = self.max_seconds / self.timing.max_seconds
        self.due += min(share * round_ms / self.usual_ms, 1.0)
        if self.due < 1:
            return False
        self.due -= 1
        return True

    @property
    def count(self) -> int:
        """The number of undisturbed samples."""
        return len(self.earlier_ms) + sum(len(s.samples_ms) for s in self.sessions)

    def samples_ms(self) -> List[float]:
        """List all undisturbed samples, scaled as if each session were as fast as all are
        on average: where sessions differ by more than their noise, the median of unscaled
        samples would be that of a single session."""
        parts = [self.earlier_ms, *(session.samples_ms for session in self.sessions)]
        medians = [(part, median(part)) for part in parts if part]
        mean_ms = sum(len(part) * ms for part, ms in medians) / max(self.count, 1)
        return [sample * mean_ms / ms for part, ms in medians for sample in part]

    @property
    def max_seconds(self) -> float:
        """The time to spend on this subject, at most: `OpTiming.max_seconds`, or what
        `SLOW_SAMPLES` take, up to `SLOW_FACTOR` times as much."""
        usual = self.timing.max_seconds
        return max(usual, min(SLOW_SAMPLES * self.usual_ms / 1e3, SLOW_FACTOR * usual))

    @property
    def late(self) -> bool:
        """Whether `max_seconds` are spent."""
        return self.seconds >= self.max_seconds

    @property
    def finished(self) -> bool:
        """Whether there are enough samples, or no more are to be taken."""
        count = self.count
        if self.late or len(self.disturbed) >= self.timing.max_disturbed:
            return count + len(self.disturbed) >= LEAST_SAMPLES
        if count >= self.timing.max_samples:
            return True
        if count < self.timing.min_samples or count % 10:  # looking takes time, too
            return False
        low, high = median_interval(self.samples_ms())
        return (high - low) / 2 <= self.timing.precision * (high + low) / 2

    def measurement(self, scale: float) -> Measurement:
        """The statistics of the undisturbed samples times `scale`. If they are fewer than
        `LEAST_SAMPLES`, the least disturbed others fill up, unscaled."""
        missing = max(LEAST_SAMPLES - self.count, 0)
        fill = sorted(self.disturbed, key=lambda sample: sample.waited)[:missing]
        samples_ms = [ms * scale for ms in self.samples_ms()]
        samples_ms += [sample.ms for sample in fill]
        return Measurement.of(samples_ms, len(self.disturbed) - len(fill))
