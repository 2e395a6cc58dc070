"""Limits that count work instead of seconds, for results that are the same on a slow machine."""

from __future__ import annotations

AMPLE_S = 600.0
"""A time limit that no plan here comes near, even on a busy machine: limits in seconds would change results."""


class Questions:
    """A Stop that says yes from the `most`-th question on.

    HiGHS on one thread asks at fixed places of its search, so the search ends at the same node everywhere; seconds
    would end it earlier on a slower machine.

    >>> stop = Questions(3)
    >>> [stop() for _ in range(4)]
    [False, False, True, True]
    """

    def __init__(self, most: int) -> None:
        self.left = most

    def __call__(self) -> bool:
        """Whether all questions but the last have been asked."""
        self.left -= 1
        return self.left <= 0
