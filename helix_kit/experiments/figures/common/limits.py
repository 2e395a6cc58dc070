"""Limits that count work in place of seconds, so that a slow machine gets the same results."""

from __future__ import annotations

AMPLE_S = 600.0
"""A time limit that no plan of the figures comes near, even on a busy machine: a limit that binds changes results."""

COUNTED_S = 20.0
"""Counted seconds of a search by method ``pattern``, which goes on for as long as a gap is left: work is counted in
place of seconds (option ``deterministic``)."""


class CountedStop:
    """A `Stop` that counts how often it is asked and says yes from a given time on.

    HiGHS on one thread asks at fixed places of its search, so the search ends at the same node on every machine. A
    limit in seconds would end it earlier on a slower machine.

    >>> stop = CountedStop(max_questions=3)
    >>> [stop() for _ in range(4)]
    [False, False, True, True]
    """

    def __init__(self, max_questions: int) -> None:
        self.questions_left = max_questions

    def __call__(self) -> bool:
        """Whether this is the last question or a later one."""
        self.questions_left -= 1
        return self.questions_left <= 0
