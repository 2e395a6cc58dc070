"""Regimes from queues whose growth is known, and the rates that follow from curves drawn by hand."""

from __future__ import annotations

import numpy as np
import pytest

from helix_kit.metrics import RequestTimes
from helix_kit.sweeps import backlog_of, regime_of
from helix_kit.sweeps.regime import highest_rate, knee_of
from helix_kit.workload.request import Request, RequestRecord


def queue(rate, service_s, duration_s, seed, servers=1):
    """Records of a first-come, first-served queue with Poisson arrivals and a fixed service time."""
    rng = np.random.default_rng(seed)
    arrivals = np.cumsum(rng.exponential(1 / rate, int(rate * duration_s)))
    free = [0.0] * servers
    records = []
    for i, at in enumerate(arrivals):
        which = int(np.argmin(free))
        start = max(at, free[which])
        free[which] = start + service_s
        done = free[which] <= duration_s
        records.append(
            RequestRecord(Request(i, at, 1, 1), outcome="finished" if done else "in_flight",
                          started_s=start if start <= duration_s else None,
                          first_token_s=start + 0.1 * service_s if start + 0.1 * service_s <= duration_s else None,
                          finished_s=free[which] if done else None)
        )  # fmt: skip
    return records


@pytest.mark.parametrize("rate, regime", [(0.5, "stable"), (3.0, "stable"), (6.0, "overloaded"), (9.0, "overloaded")])
def test_four_servers_of_a_second(rate, regime):
    """They serve four requests a second: below they keep up, above the rest piles up."""
    backlogs = [backlog_of(RequestTimes.of(queue(rate, 1.0, 400.0, seed, 4)), (100.0, 400.0)) for seed in range(3)]
    assert regime_of(backlogs) == regime
    grows = np.mean([b.growth_per_s for b in backlogs])
    assert grows == pytest.approx(max(0.0, rate - 4.0), abs=0.25)
    assert np.mean([b.arrivals_per_s for b in backlogs]) == pytest.approx(rate, rel=0.1)


def test_a_queue_that_stands_is_backlogged():
    """One server that is busy 97 % of the time: the queue is long, and in the long run it does not grow."""
    backlogs = [backlog_of(RequestTimes.of(queue(0.97, 1.0, 9_000.0, seed)), (3_000.0, 9_000.0)) for seed in range(3)]
    assert regime_of(backlogs) == "backlogged"


def test_the_knee_is_what_overloaded_runs_serve():
    regimes = ["stable", "stable", "overloaded", "overloaded"]
    assert knee_of([1, 2, 3, 4], [1.0, 2.0, 2.4, 2.6], regimes) == pytest.approx(2.5)
    assert knee_of([1, 2], [1.0, 2.0], ["stable", "stable"]) is None


def test_the_highest_rate_of_an_slo():
    assert highest_rate([1, 2, 3], [1.0, 0.9, 0.5], 0.9) == pytest.approx(2.0)
    assert highest_rate([1, 2, 3], [1.0, 0.95, 0.75], 0.9) == pytest.approx(2.25)
    assert highest_rate([1, 2], [1.0, 0.99], 0.9) == 2
    assert highest_rate([1, 2], [0.5, 0.99], 0.9) is None
    assert highest_rate([1, 2, 3], [1.0, None, 0.0], 0.5) == pytest.approx(2.0)
