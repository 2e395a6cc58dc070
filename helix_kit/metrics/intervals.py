"""Intervals of means over a few independent values, such as request streams, seeds or batches, by Student's t."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.special import stdtrit

CONFIDENCE = 0.95
"""Confidence of the intervals that results state."""


def half_interval(values: Sequence[float] | np.ndarray, confidence: float = CONFIDENCE) -> float:
    """Half the width of the interval in which the mean of at least two values lies with this confidence.

    >>> round(half_interval([1.0, 2.0, 3.0]), 3)
    2.484
    """
    return t_quantile(len(values), (1 + confidence) / 2) * standard_error(values)


def t_quantile(count: int, probability: float) -> float:
    """Quantile of Student's t for the mean of `count` values.

    >>> round(t_quantile(3, 0.975), 3)
    4.303
    """
    return float(stdtrit(count - 1, probability))


def standard_error(values: Sequence[float] | np.ndarray) -> float:
    """Standard error of the mean of at least two values.

    >>> standard_error([1.0, 3.0])
    1.0
    """
    return float(np.std(values, ddof=1)) / math.sqrt(len(values))
