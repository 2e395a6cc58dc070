"""Mean, spread and percentiles of a measure: by numpy's rule, and by that of the published simulator."""

from __future__ import annotations

import numpy as np

QUANTILES = (5, 25, 50, 75, 90, 95, 99)
PUBLISHED_QUANTILES = (5, 25, 50, 75, 95)
"""Percentiles that the published simulator reports."""


def statistics(values: np.ndarray) -> dict[str, float | None]:
    """Mean, standard deviation, extremes and percentiles, as numpy and vLLM's benchmark compute them.

    Parameters
    ----------
    values
        Any finite numbers, shape (n,).

    Returns
    -------
    dict of str to float or None
        mean, std (of the population), min, max, p5, p25, p50, p75, p90, p95 and p99; None for an empty array.
        Percentiles are interpolated linearly between the two nearest values.

    Examples
    --------
    >>> found = statistics(np.array([4.0, 1.0, 2.0, 3.0]))
    >>> found["p50"], found["max"]
    (2.5, 4.0)
    """
    names = [f"p{q}" for q in QUANTILES]
    if len(values) == 0:
        return dict.fromkeys(["mean", "std", "min", "max", *names])
    picked = [float(v) for v in np.percentile(values, QUANTILES)]
    return {
        "mean": float(values.mean()),
        "std": float(values.std()),
        "min": float(values.min()),
        "max": float(values.max()),
        **dict(zip(names, picked, strict=True)),
    }


def describe(values: np.ndarray) -> dict[str, float | None]:
    """Mean and percentiles, by the rule of the published simulator.

    Parameters
    ----------
    values
        Any numbers, shape (n,).

    Returns
    -------
    dict of str to float or None
        avg, p5, p25, p50, p75 and p95; None for an empty array. Percentile q is the value at position int(n q / 100)
        of the sorted values.

    Examples
    --------
    >>> describe(np.array([4.0, 1.0, 2.0, 3.0]))["p50"]
    3.0
    """
    if len(values) == 0:
        return {"avg": None, **{f"p{q}": None for q in PUBLISHED_QUANTILES}}
    ordered = np.sort(values)
    picked = {f"p{q}": float(ordered[int(len(ordered) * (q / 100))]) for q in PUBLISHED_QUANTILES}
    return {"avg": float(ordered.mean()), **picked}
