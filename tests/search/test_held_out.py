"""The predictor on plans that it was not fitted on."""

import pytest

import helix_kit as hk
from helix_kit.placement import Problem
from helix_kit.search.held_out import held_out, random_plans, rank_correlation


@pytest.fixture(scope="module")
def problem():
    return Problem.of(hk.Cluster.preset("single24"), hk.Model.preset("llama2-70b"))


def test_random_plans_differ_and_are_the_same_for_a_seed(problem):
    plans, again = (list(random_plans(problem, 14, 5)) for _ in range(2))
    assert [p for p, _ in plans] == [p for p, _ in again]
    assert len({tuple(sorted(p.items())) for p, _ in plans}) == 14
    assert all(flow.tokens_per_s > 0 for _, flow in plans)


def test_equal_values_share_the_mean_of_their_ranks():
    """By hand: ranks 2, 2, 2, 4 and 3, 2, 1, 4 correlate as 3 / sqrt(3 x 5). By position it would be 0.2."""
    assert rank_correlation([1, 1, 1, 2], [4, 3, 2, 5]) == pytest.approx(3 / 15**0.5)
    assert rank_correlation([4, 3, 2, 5], [1, 1, 1, 2]) == pytest.approx(3 / 15**0.5)
    assert rank_correlation([1.0, 2.0, 3.0], [10.0, 20.0, 30.0]) == pytest.approx(1)
    assert rank_correlation([1.0, 2.0, 3.0], [30.0, 20.0, 10.0]) == pytest.approx(-1)


@pytest.mark.slow
def test_orders_random_plans_of_another_draw(problem):
    found = held_out(problem, count=20, seed=5)
    assert found.plans == 20
    assert found.predictor > 0.7
    assert found.predictor > found.max_flow + 0.2
