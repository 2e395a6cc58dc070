"""Random requests with the statistics of a trace: lengths from a joint histogram, arrivals from counts per interval.

The arrival process is the one of the paper's artifact. For each interval of 3 s it draws one of the trace's counts,
scales it to the mean rate, rounds it and carries the remainder over, and spreads the arrivals uniformly at random.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from functools import cache

import numpy as np

from helix_kit import _files
from helix_kit.errors import InputError

INTERVAL_S = 3.0
MAX_REQUESTS = 20_000_000
"""Of a workload that is drawn: a typing error must not take the machine's memory."""


def generator(seed: int) -> np.random.Generator:
    """numpy's generator of a seed; InputError for what is no seed.

    >>> bool(generator(3).integers(10) == generator(3).integers(10))
    True
    """
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise InputError("expected a whole number of at least 0", field="seed", value=seed)
    return np.random.default_rng(seed)


@cache
def _table(name: str) -> np.ndarray:
    path = _files.data_dir() / "workload" / f"{name}.csv"
    with path.open(newline="", encoding="utf-8") as file:
        return np.array(list(csv.reader(file))[1:], dtype=np.int64)


def draw_lengths(name: str, count: int, rng: np.random.Generator) -> np.ndarray:
    """Pairs (input tokens, output tokens), shape (count, 2): uniform within a random cell."""
    table = _table(f"{name}_lengths")
    cells = table[rng.choice(len(table), size=count, p=table[:, 4] / table[:, 4].sum())]
    spread = rng.random((count, 2))
    low, width = cells[:, [0, 2]], cells[:, [1, 3]] - cells[:, [0, 2]]
    return low + (spread * width).astype(np.int64)


@cache
def mean_lengths(name: str) -> tuple[float, float]:
    """Mean input and output tokens of what `draw_lengths` draws."""
    table = _table(f"{name}_lengths").astype(float)
    # The uniform draw within a cell is rounded down to whole tokens: its mean is half a token below the middle.
    middle = (table[:, [0, 2]] + table[:, [1, 3]] - 1) / 2
    weighted = (middle * table[:, 4:5]).sum(axis=0) / table[:, 4].sum()
    return float(weighted[0]), float(weighted[1])


def draw_like(like: str | Sequence[tuple[int, int]], count: int, rng: np.random.Generator) -> np.ndarray:
    """Lengths as in a trace that is named, or pairs chosen at random from those given; shape (count, 2)."""
    if isinstance(like, str):
        return draw_lengths(like.replace("-", "_"), count, rng)
    pairs = np.array(like, dtype=np.int64)
    return pairs[rng.integers(len(pairs), size=count)]


def draw_arrivals(name: str, rate_per_s: float, duration_s: float, rng: np.random.Generator) -> np.ndarray:
    """Increasing arrival times in [0, duration_s), with bursts as in the trace."""
    check_rate(rate_per_s, duration_s)
    counts = _table(f"{name}_arrivals")[:, 1]
    scale = INTERVAL_S * rate_per_s / counts.mean()
    times: list[float] = []
    carried = 0.0
    for index in range(int(np.ceil(duration_s / INTERVAL_S))):
        wanted = scale * counts[rng.integers(len(counts))] + carried
        number = max(0, round(wanted))
        carried = wanted - number
        times.extend(sorted(index * INTERVAL_S + INTERVAL_S * rng.random(number)))
    return np.array([t for t in times if t < duration_s])


def poisson_arrivals(rate_per_s: float, duration_s: float, rng: np.random.Generator) -> np.ndarray:
    """Arrival times of a Poisson process in [0, duration_s)."""
    check_rate(rate_per_s, duration_s)
    number = rng.poisson(rate_per_s * duration_s)
    return np.sort(rng.random(number)) * duration_s


def check_rate(rate_per_s: float, duration_s: float) -> None:
    """Raise InputError unless both are positive and finite, and the requests are not too many."""
    for field, value in [("rate_per_s", rate_per_s), ("duration_s", duration_s)]:
        if not (np.isfinite(value) and value > 0):
            raise InputError("expected a positive, finite number", where="workload", field=field, value=value)
    if rate_per_s * duration_s > MAX_REQUESTS:
        expected = f"expected at most {MAX_REQUESTS:,} requests, not {rate_per_s * duration_s:.3g}"
        raise InputError(expected, where="workload", field="rate_per_s x duration_s", value=(rate_per_s, duration_s))
