"""Interleaved weighted round robin (paper section 5.1): spread work over candidates in proportion to weights.

Each candidate carries a load, the work given to it divided by its weight; the next piece of work goes where
the load would be smallest afterwards.

>>> wheel = Iwrr([3.0, 1.0])
>>> [wheel.choose(1.0) for _ in range(8)]
[0, 0, 0, 1, 0, 0, 0, 1]
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    Weights = Sequence[float] | np.ndarray


def choose(loads: Weights, weights: Weights, work: float, allowed: Iterable[int]) -> int:
    """The candidate among `allowed` whose load is smallest after `work`; ties go to the first, -1 if none."""
    best, best_load = -1, float("inf")
    for index in allowed:
        after = loads[index] + work / weights[index]
        if after < best_load:
            best, best_load = index, after
    return best


class Iwrr:
    """A wheel of its own, for a fixed set of candidates."""

    def __init__(self, weights: Sequence[float]) -> None:
        self.weights = list(weights)
        self.loads = [0.0] * len(self.weights)

    def choose(self, work: float, allowed: Iterable[int] | None = None) -> int:
        """Index of the candidate that gets `work`, or -1 when none of `allowed` is left."""
        index = choose(self.loads, self.weights, work, range(len(self.weights)) if allowed is None else allowed)
        if index >= 0:
            self.add(index, work)
        return index

    def add(self, index: int, work: float) -> None:
        """Count `work` (negative to take it back) for a candidate without choosing."""
        self.loads[index] += work / self.weights[index]
