"""A device that disappears: what was measured before is kept, the rest is made later."""

from importlib import import_module
from pathlib import Path

import pytest

from dpcompress.errors import EngineUnavailable
from dpcompress.latency import Store, profile
from dpcompress.runner import Engine, OpTiming, Session, Target
from dpcompress.runner.engine import working
from tests.latency.test_profile import chain, network

PROFILE = import_module("dpcompress.latency.profile")

QUICK = OpTiming(
    min_samples=5, max_samples=5, max_disturbed=0, sessions=1, group_sessions=3
)


class Vanishing(Engine):
    """ONNX Runtime on a device that is lost after `left` calls."""

    name = "onnxruntime"

    def __init__(self, real: Engine, left: float) -> None:
        self.real, self.left = real, left

    @property
    def identity(self) -> dict[str, str]:
        return self.real.identity

    def load(self, onnx: bytes) -> Session:
        session, owner = self.real.load(onnx), self

        class Lost(type(session)):  # type: ignore[misc]
            def __init__(self) -> None:
                self.__dict__ = session.__dict__

            def run_many(self, n: int) -> float:
                owner.left -= 1
                with working(owner.name):
                    if owner.left < 0:
                        raise RuntimeError("CUDA error: device lost\nand more")
                    return super().run_many(n)

        return Lost()


def test_what_was_measured_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blueprint, real = chain(2, 8), Target(threads=1).open()

    def make(left: float) -> int:
        engine = Vanishing(real, left)
        monkeypatch.setattr(Target, "open", lambda target: engine)
        with Store(tmp_path / "kept.sqlite") as store:
            before = len(store)
            try:
                profile(
                    blueprint,
                    original=network(blueprint, 1),
                    target=Target(threads=1),
                    timing=QUICK,
                    store=store,
                )
            finally:
                made.append(len(store) - before)
        return made[-1]

    made: list[int] = []
    with pytest.raises(EngineUnavailable, match="stopped working: CUDA error: device"):
        make(left=80)
    assert made[0] >= 3  # the first group
    whole = make(left=float("inf")) + made[0]
    assert make(left=0) == 0  # nothing is left to measure
    assert made[1] == whole - made[0] > 0
