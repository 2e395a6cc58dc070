"""Whether a plan keeps up with its requests, and up to which rate: from the number of requests in the system over time.

Stable: the number does not grow, and most requests start at once. Backlogged: the number does not grow, but most
requests wait for a pipeline longer than their prompt takes. Overloaded: the number grows by more than chance explains.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from helix_kit.metrics import RequestTimes

Regime = Literal["stable", "backlogged", "overloaded"]
REGIMES: tuple[Regime, ...] = ("stable", "backlogged", "overloaded")
"""From little to much load."""
GROWTH_SHARE = 0.05
"""A queue that grows by less than this share of the arrivals counts as one that does not grow."""
NOISE_SIGMAS = 2.0
"""A number of requests varies by its square root by chance; growth within this many square roots counts as chance."""
SAMPLES = 400
"""Moments at which the requests are counted in each half of the window."""


class Backlog(NamedTuple):
    """Requests in the system over a window.

    Examples
    --------
    >>> Backlog(2.0, first_half=10.0, second_half=40.0, half_s=50.0, queue_s=0.0, prompt_s=1.0).growth_per_s
    0.6
    """

    arrivals_per_s: float
    """Requests that arrived in the window, a second."""
    first_half: float
    """Mean number of requests that have arrived and not ended, in the window's first half."""
    second_half: float
    """The same in its second half."""
    half_s: float
    """Seconds between the middles of the halves."""
    queue_s: float
    """Median time that requests waited for a pipeline."""
    prompt_s: float
    """Median time from the start on a pipeline to the first token."""

    @property
    def growth_per_s(self) -> float:
        """Requests by which the number in the system grows, a second."""
        return (self.second_half - self.first_half) / self.half_s if self.half_s > 0 else 0.0


def backlog_of(times: RequestTimes, window: tuple[float, float]) -> Backlog:
    """Count the requests in the system over a window.

    Parameters
    ----------
    times
        The requests of a run.
    window
        (start, end) in s.

    Returns
    -------
    Backlog
        The counts in both halves, and how long requests waited.

    Examples
    --------
    >>> from helix_kit.workload.request import Request, RequestRecord
    >>> records = [RequestRecord(Request(i, float(i), 1, 1)) for i in range(100)]
    >>> round(backlog_of(RequestTimes.of(records), (0.0, 100.0)).growth_per_s, 2)
    1.0
    """
    start_s, end_s = window
    arrivals = np.sort(times.arrival_s)
    ends = np.sort(times.ended_s[~np.isnan(times.ended_s)])
    means = []
    for low_s, high_s in ((start_s, (start_s + end_s) / 2), ((start_s + end_s) / 2, end_s)):
        moments = low_s + (high_s - low_s) * (np.arange(SAMPLES) + 0.5) / SAMPLES
        inside = np.searchsorted(arrivals, moments, side="right") - np.searchsorted(ends, moments, side="right")
        means.append(float(inside.mean()))
    arrived = (times.arrival_s >= start_s) & (times.arrival_s <= end_s)
    # A request that still waits at the end has waited at least until then.
    waited = np.where(np.isnan(times.started_s), end_s, times.started_s)[arrived & ~times.lost]
    waited = waited - times.arrival_s[arrived & ~times.lost]
    prompts = (times.first_token_s - times.started_s)[arrived]
    prompts = prompts[~np.isnan(prompts)]
    return Backlog(
        arrivals_per_s=float(arrived.sum() / (end_s - start_s)) if end_s > start_s else 0.0,
        first_half=means[0],
        second_half=means[1],
        half_s=(end_s - start_s) / 2,
        queue_s=float(np.median(waited)) if len(waited) else 0.0,
        prompt_s=float(np.median(prompts)) if len(prompts) else 0.0,
    )


def regime_of(backlogs: Sequence[Backlog]) -> Regime:
    """Stable, backlogged or overloaded, from the runs of one load with several seeds.

    Parameters
    ----------
    backlogs
        One of each run, at least one.

    Returns
    -------
    str
        One of `REGIMES`.

    Examples
    --------
    >>> calm = Backlog(2.0, 10.0, 11.0, 50.0, queue_s=0.0, prompt_s=1.0)
    >>> regime_of([calm]), regime_of([calm._replace(queue_s=5.0)]), regime_of([calm._replace(second_half=60.0)])
    ('stable', 'backlogged', 'overloaded')
    """
    first = float(np.mean([b.first_half for b in backlogs]))
    grown = float(np.mean([b.second_half - b.first_half for b in backlogs]))
    arrived = float(np.mean([b.arrivals_per_s * b.half_s for b in backlogs]))
    noise = NOISE_SIGMAS * math.sqrt(2 * (first + 1) / len(backlogs))
    if grown > max(noise, GROWTH_SHARE * arrived):
        return "overloaded"
    queue_s, prompt_s = (float(np.mean([getattr(b, f) for b in backlogs])) for f in ("queue_s", "prompt_s"))
    return "backlogged" if queue_s > prompt_s else "stable"


def knee_of(rates: Sequence[float], served: Sequence[float], regimes: Sequence[Regime]) -> float | None:
    """The rate up to which requests are served as fast as they come: the mean rate served by overloaded runs.

    Below it served = offered, above it served = this plateau, and the two lines meet at the plateau's height. None when
    no rate overloads the plan.
    """
    plateau = [s for s, regime in zip(served, regimes, strict=True) if regime == "overloaded"]
    return float(np.mean(plateau)) if plateau and len(rates) else None


def highest_rate(rates: Sequence[float], attainments: Sequence[float | None], at: float) -> float | None:
    """The highest rate, from the lowest on, at which the share `at` keeps the SLO; interpolated between two points.

    None when it does not hold at the lowest rate.

    >>> round(highest_rate([1.0, 2.0, 3.0], [1.0, 0.95, 0.75], 0.9), 6)
    2.25
    """
    best: tuple[float, float] | None = None
    for rate, share in sorted(zip(rates, attainments, strict=True)):
        if share is None:
            continue
        if share < at:
            if best is None:
                return None
            return best[0] + (rate - best[0]) * (best[1] - at) / (best[1] - share)
        best = (rate, share)
    return None if best is None else best[0]


__all__ = ["REGIMES", "Backlog", "backlog_of", "regime_of"]
