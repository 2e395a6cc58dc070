"""The clock of a solve: its time limit, the user's stop, progress reports, and value and bound over time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping

Progress = Callable[[float, float, float, str], None]
"""Called with (seconds, best value, bound, message); values in tokens/s, whatever the method maximises."""
Stop = Callable[[], bool] | threading.Event
"""Polled often. Once it is set or returns True, the solve ends soon and keeps the best plan found."""
Incumbent = Callable[[Mapping[str, tuple[int, int]]], None]
"""Called with each better placement while the solve goes on: node name -> layer range [start, end)."""


STEP_S = 0.002
"""Seconds that each call of `is_over` counts on a counted clock."""


class _Clock:
    """Seconds since the start."""

    is_counted = False

    def __init__(self) -> None:
        self._started = time.perf_counter()

    def seconds(self) -> float:
        return time.perf_counter() - self._started

    def spend(self, seconds: float) -> None:
        """Time passes by itself."""


class _CountedClock(_Clock):
    """Seconds that work would take on a usual machine: each piece of work says how many."""

    is_counted = True

    def __init__(self) -> None:
        self._spent_s = 0.0

    def seconds(self) -> float:
        return self._spent_s

    def spend(self, seconds: float) -> None:
        self._spent_s += seconds


class Watch:
    """The clock, and the best value and bound so far. Every change is recorded and reported.

    Parameters
    ----------
    time_limit_s
        Seconds from now until it is over.
    progress
        Called with each change.
    stop
        Ends it early.
    incumbent
        Called with each better placement.
    counted
        Whether to count work in place of seconds. The same search then ends at the same place on every machine.

    Examples
    --------
    >>> watch = Watch(60.0)
    >>> watch.report(value=3.0, bound=9.0)
    >>> watch.report(value=2.0)
    >>> watch.value, watch.bound, len(watch.history), watch.is_over()
    (3.0, 9.0, 1, False)
    """

    def __init__(
        self,
        time_limit_s: float = 60.0,
        progress: Progress | None = None,
        stop: Stop | None = None,
        incumbent: Incumbent | None = None,
        *,
        counted: bool = False,
    ) -> None:
        self._clock = _CountedClock() if counted else _Clock()
        self._begun_s = 0.0
        self.time_limit_s = time_limit_s
        self.value, self.bound = 0.0, float("inf")
        self.history: list[tuple[float, float, float]] = []
        self._progress, self._stop, self._incumbent = progress, stop, incumbent
        self._whole: Watch | None = None

    @property
    def is_counted(self) -> bool:
        """Whether work is counted in place of seconds."""
        return self._clock.is_counted

    def spend(self, seconds: float) -> None:
        """Count work that takes this long on a usual machine. Without effect where seconds are measured."""
        self._clock.spend(seconds)

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return self._clock.seconds() - self._begun_s

    @property
    def left_s(self) -> float:
        """Seconds until the time limit, at least 0."""
        return max(0.0, self.time_limit_s - self.seconds)

    def stopped(self) -> bool:
        """Whether the user asked to stop."""
        if self._stop is None:
            return False
        return self._stop.is_set() if isinstance(self._stop, threading.Event) else bool(self._stop())

    def is_over(self) -> bool:
        """Whether to end now: the user asked to stop, or no time is left."""
        self._clock.spend(STEP_S)
        return self.left_s <= 0 or self.stopped()

    def for_part(self, time_limit_s: float) -> Watch:
        """A watch on the same clock for a part of the search: over after `time_limit_s` seconds, or when this one is.

        Its incumbents are reported here too; its bounds hold only for the part.
        """
        part = Watch(min(time_limit_s, self.left_s), stop=self.stopped)
        part._clock, part._begun_s, part._whole = self._clock, self._clock.seconds(), self
        return part

    def solver_limit(self, limit_s: float) -> tuple[float, Callable[[], bool]]:
        """The time limit of a solver that may take `limit_s` seconds at most, and the function that it polls to stop.

        On a counted clock the solver's own clock must not decide, so the polls end it.
        """
        if self.is_counted:
            return float("inf"), self.for_part(limit_s).is_over
        return min(limit_s, self.left_s), self.stopped

    def show(self, placement: Mapping[str, tuple[int, int]]) -> None:
        """Call the callback for incumbents with a placement that is the best so far."""
        if self._incumbent is not None:
            self._incumbent(placement)

    def report(
        self,
        value: float | None = None,
        bound: float | None = None,
        message: str = "",
        placement: Mapping[str, tuple[int, int]] | None = None,
    ) -> None:
        """Record the value of an incumbent, or a bound, if it is better than the last, and call the callbacks.

        Parameters
        ----------
        value
            Tokens/s of the incumbent.
        bound
            Proven bound in tokens/s.
        message
            What happened, for the reader.
        placement
            The incumbent itself, where the method has it.
        """
        if self._whole is not None:
            self._whole.report(value=value, placement=placement)
        better = False
        if value is not None and value > self.value:
            self.value, better = value, True
            if placement:
                self.show(placement)
        if bound is not None and bound < self.bound:
            self.bound, better = bound, True
        now = self.seconds
        # JSON has no infinity: the record starts with the first bound.
        if better and self.bound < float("inf"):
            self.history.append((now, self.value, self.bound))
        if self._progress is not None and (better or message):
            self._progress(now, self.value, self.bound, message)


__all__ = ["Incumbent", "Progress", "Stop", "Watch"]
