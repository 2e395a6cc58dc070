"""Nodes as servers: M/M/1, M/D/1 and a tandem agree with the formulas, in both kinds of execution."""

from __future__ import annotations

import numpy as np
import pytest
from queue_servers import servers
from scipy import stats

from helix_kit.simulator import BatchingOptions, simulate
from helix_kit.workload import Workload

REQUESTS, BATCHES = 60_000, 30
ONE_AT_A_TIME = BatchingOptions(step_tokens=1, chunk_tokens=10**9)


def sojourn_interval(plan, arrivals, tokens, execution):
    """99 % confidence interval of the mean time in the system, by batch means."""
    workload = Workload.of((float(t), int(n), 1) for t, n in zip(arrivals, tokens, strict=True))
    run = simulate(plan, workload, execution=execution, options=ONE_AT_A_TIME, duration_s=float(arrivals[-1]) + 1e4)
    times = np.array([r.first_token_s - r.request.arrival_s for r in run.records if r.first_token_s is not None])
    assert len(times) == len(workload)
    means = times[len(times) // 20 :][: len(times) // 20 * 19 // BATCHES * BATCHES].reshape(BATCHES, -1).mean(axis=1)
    half = stats.t.ppf(0.995, BATCHES - 1) * means.std(ddof=1) / np.sqrt(BATCHES)
    assert half < 0.1 * means.mean()
    return means.mean() - half, means.mean() + half


@pytest.mark.parametrize("execution", ["range", "layerwise"])
@pytest.mark.parametrize("utilisation", [0.3, 0.7])
def test_mm1(execution, utilisation):
    """Geometric lengths of mean 200 are exponential service times, as far as 60,000 requests can tell."""
    rng = np.random.default_rng(1)
    plan = servers([5.0])
    arrivals = np.cumsum(rng.exponential(1.0 / utilisation, REQUESTS))
    low, high = sojourn_interval(plan, arrivals, np.minimum(rng.geometric(1 / 200, REQUESTS), 2048), execution)
    assert low < 1.0 / (1.0 - utilisation) < high


@pytest.mark.parametrize("execution", ["range", "layerwise"])
@pytest.mark.parametrize("utilisation", [0.5, 0.8])
def test_md1(execution, utilisation):
    rng = np.random.default_rng(2)
    plan = servers([10.0])
    arrivals = np.cumsum(rng.exponential(1.0 / utilisation, REQUESTS))
    low, high = sojourn_interval(plan, arrivals, np.full(REQUESTS, 100), execution)
    assert low < 1.0 + utilisation / (2 * (1 - utilisation)) < high


@pytest.mark.parametrize("execution", ["range", "layerwise"])
@pytest.mark.parametrize("milliseconds", [[10.0, 6.0], [6.0, 10.0], [4.0, 10.0, 7.0]])
def test_tandem_of_deterministic_servers(execution, milliseconds):
    """Friedman 1965: the waiting is that of the slowest server alone, wherever it stands."""
    rng = np.random.default_rng(3)
    utilisation = 0.7
    arrivals = np.cumsum(rng.exponential(1.0 / utilisation, REQUESTS))
    low, high = sojourn_interval(servers(milliseconds), arrivals, np.full(REQUESTS, 100), execution)
    expected = sum(milliseconds) / 10 + utilisation / (2 * (1 - utilisation))
    assert low < expected < high


@pytest.mark.parametrize("execution", ["range", "layerwise"])
def test_a_lone_request_takes_the_sum_of_its_services(execution):
    workload = Workload.of([(5.0, 100, 1)])
    run = simulate(servers([10.0, 6.0]), workload, execution=execution, options=ONE_AT_A_TIME)
    assert run.summary()["prompt_latency_s"]["avg"] == pytest.approx(1.6, rel=1e-3)


def test_littles_law():
    """Mean number in the system = arrival rate x mean time in it, over a long stable run."""
    rng = np.random.default_rng(4)
    arrivals = np.cumsum(rng.exponential(1 / 0.7, 20_000))
    workload = Workload.of((float(t), 100, 1) for t in arrivals)
    run = simulate(servers([10.0]), workload, options=ONE_AT_A_TIME, duration_s=float(arrivals[-1]) + 100)
    ends = np.sort([r.finished_s for r in run.records])
    grid = np.linspace(0, arrivals[-1], 200_001)
    inside = np.searchsorted(arrivals, grid) - np.searchsorted(ends, grid)
    rate = len(arrivals) / arrivals[-1]
    assert inside.mean() == pytest.approx(rate * run.summary()["prompt_latency_s"]["avg"], rel=0.01)
    busy = run.nodes["T4-0"].busy * run.window_s / arrivals[-1]
    assert busy == pytest.approx(0.7, rel=0.03)
