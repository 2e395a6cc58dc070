"""Load rules deal out every request, and the committed table holds the rules."""

import pytest

from helix_kit import Workload
from helix_kit.experiments.figures.equal_load import dealt, faster


def test_requests_are_dealt_in_proportion_and_none_is_lost():
    requests = Workload.of([(float(i), 10 + i, 5) for i in range(90)])
    hands = dealt(requests, (2.0, 1.0, 0.0))
    assert [len(h) for h in hands] == [60, 30, 0]
    assert sorted(r.input_tokens for h in hands for r in h) == [r.input_tokens for r in requests]
    quick = faster(requests, 2.0)
    assert [r.arrival_s for r in quick[:3]] == [0.0, 0.5, 1.0] and quick[5].input_tokens == 15
