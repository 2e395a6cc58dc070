"""The predictor on plans that it was not fitted on."""

import helix_kit as hk
from helix_kit.placement import Problem
from helix_kit.search.held_out import held_out, random_plans


def test_orders_random_plans_of_another_draw():
    problem = Problem.of(hk.Cluster.preset("single24"), hk.Model.preset("llama2-70b"))
    plans, again = (list(random_plans(problem, 16, 5)) for _ in range(2))
    assert [p for p, _ in plans] == [p for p, _ in again]
    assert len({tuple(sorted(p.items())) for p, _ in plans}) == 16
    found = held_out(problem, count=16, seed=5, window_s=30.0)
    assert found.plans == 16
    assert found.predictor > 0.8
    assert found.predictor > found.max_flow
