"""Limits that count work end a search at the same place on every machine."""

from helix_kit import Cluster, Model
from helix_kit.experiments.figures.common.limits import CountedStop
from helix_kit.placement.planner import plan_problem
from helix_kit.placement.problem import Problem


def test_a_solver_ends_at_the_same_plan_and_bound():
    problem = Problem.of(Cluster.preset("cluster10"), Model.preset("llama-30b"))
    plans = [plan_problem(problem, method="paper-milp", time_limit_s=60.0, stop=CountedStop(20)) for _ in range(2)]
    assert plans[0].placement == plans[1].placement
    assert plans[0].bound_tokens_per_s == plans[1].bound_tokens_per_s
