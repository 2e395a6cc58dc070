"""Interleaved weighted round robin (Helix, section 5.1): spread work over candidates in proportion to weights.

The load of a candidate is the work given to it, divided by its weight. The next work goes to the candidate whose load
would be smallest afterwards.

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
    """The candidate in `allowed` with the smallest load after `work`: of equal ones the first; -1 if there is none."""
    best, best_load = -1, float("inf")
    for index in allowed:
        after = loads[index] + work / weights[index]
        if after < best_load:
            best, best_load = index, after
    return best


class Iwrr:
    """Weighted round robin over a fixed set of candidates."""

    def __init__(self, weights: Sequence[float]) -> None:
        self.weights = list(weights)
        self.loads = [0.0] * len(self.weights)

    def choose(self, work: float, allowed: Iterable[int] | None = None) -> int:
        """Index of the candidate that gets `work`, or -1 when `allowed` is empty."""
        index = choose(self.loads, self.weights, work, range(len(self.weights)) if allowed is None else allowed)
        if index >= 0:
            self.add(index, work)
        return index

    def add(self, index: int, work: float) -> None:
        """Add `work` to the load of a candidate. Negative work takes it back."""
        self.loads[index] += work / self.weights[index]
