"""Intervals of means, beside scipy's own."""

import numpy as np
import pytest
from scipy import stats

from helix_kit.metrics.intervals import half_interval, standard_error, t_quantile

VALUES = [3.0, 4.5, 2.0, 8.0, 5.5]


@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
def test_the_interval_is_that_of_students_t(confidence):
    low, high = stats.t.interval(confidence, len(VALUES) - 1, np.mean(VALUES), stats.sem(VALUES))
    assert half_interval(VALUES, confidence) == pytest.approx((high - low) / 2)
    assert half_interval(np.array(VALUES), confidence) == half_interval(VALUES, confidence)


def test_its_parts():
    assert standard_error(VALUES) == pytest.approx(stats.sem(VALUES))
    assert t_quantile(6, 0.9) == pytest.approx(stats.t.ppf(0.9, 5))
    assert t_quantile(10**6, 0.975) == pytest.approx(1.96, abs=1e-3), "many values: the normal distribution"


def test_it_covers_the_mean_as_often_as_it_says():
    draws = np.random.default_rng(0).normal(size=(4000, 4))
    covered = [abs(row.mean()) <= half_interval(row) for row in draws]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.015)
