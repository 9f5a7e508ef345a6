"""A machine whose clock is ours, so that the right answer is known, and a log of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from dpcompress.errors import BadInput
from dpcompress.runner import Measurement, Session, Subject


@dataclass
class World:
    """Time passes only while sessions run; `slowness` is a function of the time, of all
    subjects, and `of_kind` of those of a kind."""

    slowness: Callable[[float], float] = lambda now: 1.0
    of_kind: Callable[[float], float] = lambda now: 1.0
    now: float = 0.0
    loaded: list[str] = field(default_factory=list)

    def subject(self, name: str, ms: float, size: int = 0, kind: str = "") -> Subject:
        def load() -> Session:
            self.loaded.append(name)
            return Timed(self, ms, kind)

        return Subject(name, load, size, kind)


class Timed(Session):
    def __init__(self, world: World, ms: float, kind: str = "") -> None:
        self.world, self.ms, self.kind = world, ms, kind

    def run_many(self, n: int) -> float:
        seconds = n * self.ms / 1e3 * self.world.slowness(self.world.now)
        if self.kind:
            seconds *= self.world.of_kind(self.world.now)
        self.world.now += seconds
        return seconds

    def infer(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {}


@dataclass
class Notes:
    """A log in memory."""

    times: dict[str, Measurement] = field(default_factory=dict)
    kept: dict[str, list[float]] = field(default_factory=dict)
    refused: dict[str, BadInput] = field(default_factory=dict)

    def known(self, key: str) -> Measurement | None:
        return self.times.get(key)

    def samples(self, key: str) -> list[float]:
        return list(self.kept.get(key, ()))

    def add_samples(self, samples_ms: Mapping[str, float]) -> None:
        for key, ms in samples_ms.items():
            self.kept.setdefault(key, []).append(ms)

    def finish(self, key: str, time: Measurement) -> None:
        self.times[key] = time

    def reject(self, key: str, error: BadInput) -> None:
        self.refused[key] = error
