"""Percentiles against Python's own statistics module, and the order of the published rule's."""

from __future__ import annotations

import statistics as reference

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helix_kit.metrics import describe, statistics

VALUES = st.lists(st.floats(0, 1e6), min_size=2, max_size=60)


@given(VALUES)
def test_against_pythons_statistics(values):
    found = statistics(np.array(values))
    cuts = reference.quantiles(values, n=100, method="inclusive")
    for name, expected in [("mean", reference.fmean(values)), ("std", reference.pstdev(values)),
                           ("min", min(values)), ("max", max(values)), ("p50", reference.median(values)),
                           ("p5", cuts[4]), ("p25", cuts[24]), ("p90", cuts[89]), ("p99", cuts[98])]:  # fmt: skip
        assert found[name] == pytest.approx(expected, rel=1e-9, abs=1e-6)


@given(VALUES)
def test_order(values):
    found = statistics(np.array(values))
    ordered = [found[name] for name in ("min", "p5", "p25", "p50", "p75", "p90", "p95", "p99", "max")]
    assert ordered == sorted(ordered)


def test_of_nothing():
    assert set(statistics(np.array([])).values()) == {None} and describe(np.array([]))["p95"] is None
