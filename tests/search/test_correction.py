"""What simulations teach about the predictor: errors that follow a feature are taken out."""

import math

import numpy as np
import pytest

from helix_kit.flow import Flow
from helix_kit.search.candidate import Candidate
from helix_kit.search.correction import MIN_SIMULATED, corrected, fitted

NO_FLOW = Flow(1.0, {}, {}, ())


class Features:
    """Stands for a predictor: a plan's features are the ends of its only two ranges."""

    def features(self, placement, flow):
        return tuple(end / 10 for _, end in placement.values())


def candidates(count, value_of, seed=0):
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        a, b = (int(x) for x in rng.integers(1, 40, 2))
        predicted = float(rng.uniform(50, 100))
        placement = {"a": (0, a), "b": (0, b)}
        found.append(Candidate(placement, NO_FLOW, predicted, value=value_of(predicted, a / 10, b / 10)))
    return found


def test_without_enough_plans_predictions_stay_as_they_are():
    few = candidates(MIN_SIMULATED - 1, lambda predicted, a, b: predicted / 2)
    assert fitted(Features(), few) == ()
    assert corrected(Features(), few, ()) == [c.predicted_value for c in few]


def test_a_factor_that_all_plans_share_changes_no_order():
    known = candidates(20, lambda predicted, a, b: 0.4 * predicted)
    found = corrected(Features(), known, fitted(Features(), known))
    assert found == pytest.approx([0.4 * c.predicted_value for c in known], rel=1e-6)


def test_an_error_that_follows_a_feature_is_taken_out_of_plans_not_seen_before():
    """Plans with large `a` are predicted too high: before, the ranks of others are hardly those of their values."""

    def value_of(predicted, a, b):
        return predicted * math.exp(-0.4 * a)

    known, others = candidates(60, value_of), candidates(40, value_of, seed=1)
    found = corrected(Features(), others, fitted(Features(), known))
    values = [c.value for c in others]
    wrong = [abs(math.log(p / v)) for p, v in zip(found, values, strict=True)]
    before = [abs(math.log(c.predicted_value / c.value)) for c in others]
    assert np.mean(wrong) < np.mean(before) / 3

    def best_ten(numbers):
        return set(np.argsort(numbers)[-10:])

    best, predicted = best_ten(values), [c.predicted_value for c in others]
    assert len(best_ten(found) & best) > len(best_ten(predicted) & best)


def test_plans_without_a_value_or_a_prediction_teach_nothing():
    known = candidates(20, lambda predicted, a, b: predicted)
    nothing = [Candidate({"a": (0, 1), "b": (0, 1)}, NO_FLOW, p, value=v) for p, v in ((0.0, 5.0), (5.0, 0.0))]
    assert fitted(Features(), [*known, *nothing]) == fitted(Features(), known)
