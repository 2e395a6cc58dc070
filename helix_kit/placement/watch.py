"""The clock of a solve: time limit, Stop, progress reports, and the record of value and bound over time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

Progress = Callable[[float, float, float, str], None]
"""Called with (seconds, best value, bound, message); values in tokens/s, whatever the method maximises."""
Stop = Callable[[], bool] | threading.Event
"""Asked often; the solve ends soon after it says yes, and keeps the best plan found."""


class Watch:
    """Best value and bound so far; every change is recorded and reported."""

    def __init__(self, time_limit_s: float = 60.0, progress: Progress | None = None, stop: Stop | None = None) -> None:
        self.started = time.perf_counter()
        self.time_limit_s = time_limit_s
        self.value, self.bound = 0.0, float("inf")
        self.history: list[tuple[float, float, float]] = []
        self._progress, self._stop = progress, stop

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self.started

    @property
    def left_s(self) -> float:
        """Seconds until the time limit, at least 0."""
        return max(0.0, self.time_limit_s - self.seconds)

    def stopped(self) -> bool:
        """Whether Stop was pressed."""
        if self._stop is None:
            return False
        return self._stop.is_set() if isinstance(self._stop, threading.Event) else bool(self._stop())

    def is_over(self) -> bool:
        """Whether to end now: Stop, or no time left."""
        return self.left_s <= 0 or self.stopped()

    def report(self, value: float | None = None, bound: float | None = None, message: str = "") -> None:
        """Record an incumbent or a bound (kept if better than the last) and tell the callback."""
        better = False
        if value is not None and value > self.value:
            self.value, better = value, True
        if bound is not None and bound < self.bound:
            self.bound, better = bound, True
        now = self.seconds
        # JSON has no infinity: the record starts with the first bound.
        if better and self.bound < float("inf"):
            self.history.append((now, self.value, self.bound))
        if self._progress is not None and (better or message):
            self._progress(now, self.value, self.bound, message)
