"""One session under the clock. Valid on Python 3.8."""

from __future__ import annotations

from typing import Tuple

from dpcompress.runner.disturbance import CoreWait
from dpcompress.runner.engine import Session


class Clock:
    """Times windows of at least `window_ms`; warmed up when made.

    A window counts as left in peace if threads waited for a core during at most
    `core_wait` of it.
    """

    def __init__(
        self, session: Session, window_ms: float, core_wait: float, wait: CoreWait
    ) -> None:
        self._session, self._wait = session, wait
        self._window_ms, self._core_wait = window_ms, core_wait
        self._repetitions = 1
        self._warm_up()

    def _warm_up(self) -> None:
        """Run until two windows agree within 2 %, or for 12 windows."""
        self._session.run_many(1)
        last, fastest = 0.0, float("inf")
        for _ in range(12):
            now = self._session.run_many(self._repetitions) * 1e3 / self._repetitions
            fastest = min(fastest, max(now, 1e-6))
            self._repetitions = max(1, round(self._window_ms / fastest))
            if abs(now - last) <= 0.02 * now:
                break
            last = now

    def window(self) -> Tuple[float, bool]:
        """One window: milliseconds per inference, and whether it was left in peace.

        The inference before it brings back to the caches what others pushed out.
        """
        self._session.run_many(1)
        waited = self._wait.seconds()
        seconds = self._session.run_many(self._repetitions)
        waited = self._wait.seconds() - waited
        calm = waited <= self._core_wait * seconds
        return seconds * 1e3 / self._repetitions, calm
