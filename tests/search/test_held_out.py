"""The predictor on plans that it was not fitted on."""

import pytest

import helix_kit as hk
from helix_kit.placement import Problem
from helix_kit.search.held_out import held_out, random_plans


@pytest.fixture(scope="module")
def problem():
    return Problem.of(hk.Cluster.preset("single24"), hk.Model.preset("llama2-70b"))


def test_random_plans_differ_and_are_the_same_for_a_seed(problem):
    plans, again = (list(random_plans(problem, 14, 5)) for _ in range(2))
    assert [p for p, _ in plans] == [p for p, _ in again]
    assert len({tuple(sorted(p.items())) for p, _ in plans}) == 14
    assert all(flow.tokens_per_s > 0 for _, flow in plans)


@pytest.mark.slow
def test_orders_random_plans_of_another_draw(problem):
    found = held_out(problem, count=20, seed=5)
    assert found.plans == 20
    assert found.predictor > 0.7
    assert found.predictor > found.max_flow + 0.2
