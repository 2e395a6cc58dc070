"""The clock of a fleet's simulations: what a run will take, from what those before it took, and when to break one off.

A run costs about as much for each token on each machine, whatever the fleet. So its seconds are known before it is
made. A run that would take too much of the time that is left is made shorter; one that would not end in time, even if
it is as short as it may be, is not begun.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from helix_kit.placement.watch import Watch

FIRST_UNIT_S = 3e-6
"""Seconds for a token on a machine, before a run was made."""
FIRST_LIMIT = 10.0
"""The first run also loads the simulator: it counts as at most so many times the seconds that were expected."""
MIN_EFFORT = 0.4
"""A run is shortened to this share of its usual length at most: the number of requests must still settle."""
GRACE, GRACE_S = 1.05, 0.5
"""A run is broken off at the time limit times the one and plus the other."""


class OutOfTimeError(Exception):
    """No time is left for a simulation, or it took all of it."""


class RunClock:
    """Decides how long runs are.

    Parameters
    ----------
    watch
        The clock of the whole search.

    Examples
    --------
    >>> clock = RunClock(Watch(60.0))
    >>> clock.effort(1e6, share=0.5), round(clock.effort(20e6, share=0.5), 1)
    (1.0, 0.5)
    """

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._unit_s, self._is_first = FIRST_UNIT_S, True
        self._began_s = time.perf_counter()
        self.refused_s = 0.0
        """Seconds that the last run would have taken that was not begun, or broken off."""

    def takes_s(self, work: float) -> float:
        """Seconds of a run in which so many tokens pass so many machines: the product of the two."""
        return max(1e-9, work * self._unit_s)

    def effort(self, work: float, share: float) -> float:
        """The length of a run as a share of the usual one, so that it takes at most `share` of the seconds left.

        Raises OutOfTimeError where even the shortest run would not end in time.
        """
        left_s, takes_s = self._watch.left_s, self.takes_s(work)
        if self._watch.stopped() or MIN_EFFORT * takes_s > left_s:
            self.refused_s = takes_s
            raise OutOfTimeError
        return min(1.0, max(MIN_EFFORT, share * left_s / takes_s))

    def look(self, now_s: float, end_s: float) -> None:
        """Raise OutOfTimeError in the middle of a run that takes longer than was expected, or at the user's stop.

        `simulate` calls this as its `progress`, with the simulated seconds.
        """
        if self._watch.stopped() or self._watch.seconds > GRACE * self._watch.time_limit_s + GRACE_S:
            self.refused_s = (time.perf_counter() - self._began_s) * end_s / max(now_s, 1.0)
            raise OutOfTimeError

    @contextmanager
    def timed(self, work: float) -> Iterator[None]:
        """Learn from the run that is made inside."""
        self._began_s = time.perf_counter()
        yield
        unit_s = (time.perf_counter() - self._began_s) / max(work, 1.0)
        self._unit_s = min(unit_s, FIRST_LIMIT * FIRST_UNIT_S) if self._is_first else unit_s
        self._is_first = False


__all__ = ["OutOfTimeError", "RunClock"]
