"""The requests of a point: the asked rate, the same lengths, another order for another seed."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from helix_kit import Workload
from helix_kit.errors import InputError
from helix_kit.sweeps import SweepOptions
from helix_kit.sweeps.load import closed_loop_requests, requests_at

GIVEN = Workload.of([(0.0, 10, 1), (1.0, 20, 2), (3.0, 30, 3), (6.0, 40, 4)])


def options(workload):
    return SweepOptions(workload=workload, warmup_s=20.0, duration_s=80.0)


@pytest.mark.parametrize("rate", [0.5, 2.0, 7.0])
def test_given_requests_are_repeated(rate):
    found = requests_at(options(GIVEN), rate, seed=0)
    assert len(found) / 100 == pytest.approx(rate, rel=0.05)
    counts = Counter(r.input_tokens for r in found)
    assert set(counts) == {10, 20, 30, 40} and max(counts.values()) - min(counts.values()) <= 1
    assert max(r.arrival_s for r in found) < 100
    if rate == 2.0:  # gaps of 1, 2, 3 s at 0.5/s become a quarter, and the round of four takes 2 s
        assert np.diff([r.arrival_s for r in found])[:5] == pytest.approx([0.25, 0.5, 0.75, 0.5, 0.25])


def test_a_seed_begins_elsewhere():
    first = [requests_at(options(GIVEN), 2.0, seed)[0].input_tokens for seed in range(5)]
    assert first == [10, 20, 30, 40, 10]


def test_requests_without_times_are_spread_evenly():
    backlog = Workload.of([(0.0, 10, 1)] * 3)
    assert np.diff([r.arrival_s for r in requests_at(options(backlog), 2.0, 0)]) == pytest.approx(0.5)


@pytest.mark.parametrize("name", ["azure-conversation", "azure-code", "poisson", "constant"])
def test_names(name):
    assert len(requests_at(options(name), 5.0, 1)) / 100 == pytest.approx(5.0, rel=0.5), "bursts"
    few, more = (next(backlogs) for backlogs in [closed_loop_requests(options(name), 1)] for _ in range(2))
    assert (len(few), len(more)) == (2000, 4000) and {r.arrival_s for r in few} == {0.0}


def test_a_closed_loop_draws_from_given_requests():
    assert {r.input_tokens for r in next(closed_loop_requests(options(GIVEN), 0))} == {10, 20, 30, 40}


def test_refusals():
    with pytest.raises(InputError, match="azure-conversation"):
        requests_at(options("azure"), 1.0, 0)
    with pytest.raises(InputError, match="empty"):
        requests_at(options(Workload(())), 1.0, 0)
