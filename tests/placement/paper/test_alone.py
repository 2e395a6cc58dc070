"""A solver without help: what it reports is its own, and its value is what its placement carries."""

from __future__ import annotations

import pytest

from helix_kit import Cluster, Model, Problem, plan
from helix_kit.placement.paper.alone import solve_alone


@pytest.fixture(scope="module")
def problem() -> Problem:
    cluster = Cluster.model_validate(
        {"name": "six", "throughput": "published", "nodes": [{"gpu": "L4", "count": 2}, {"gpu": "T4", "count": 4}]}
    )
    model = Model.preset("SmolLM2-135M").model_copy(update={"name": "short", "num_layers": 6, "layer_gb": 4.0})
    return Problem.of(cluster, model)


def test_a_small_program_is_solved_to_the_value_of_the_other_program(problem):
    run = solve_alone(problem, time_limit_s=30.0)
    other = plan(problem.cluster, problem.model, time_limit_s=30.0)
    assert run.flow_tokens_per_s == pytest.approx(other.flow_tokens_per_s, rel=1e-4)
    assert run.bound_tokens_per_s == pytest.approx(run.flow_tokens_per_s, rel=1e-4) and run.gap < 1e-3
    assert problem.max_flow(run.placement).tokens_per_s == pytest.approx(run.flow_tokens_per_s)


def test_progress_is_the_solvers_own_and_only_improves(problem):
    heard = []
    run = solve_alone(problem, time_limit_s=30.0, progress=lambda *now: heard.append(now[:3]))
    assert tuple(heard) == run.progress
    seconds, values, bounds = zip(*run.progress)
    assert list(seconds) == sorted(seconds) and seconds[-1] <= run.seconds
    assert list(values) == sorted(values) and values[-1] == pytest.approx(run.flow_tokens_per_s, rel=1e-4)
    assert list(bounds) == sorted(bounds, reverse=True)


def test_without_time_there_is_no_placement_though_a_heuristic_has_one():
    problem = Problem.of(Cluster.preset("single24"), Model.preset("llama2-70b"))
    run = solve_alone(problem, time_limit_s=0.5)
    assert run.placement == {} and run.flow_tokens_per_s == 0.0 and run.gap == float("inf")
    fallback = plan(problem.cluster, problem.model, method="paper-milp", time_limit_s=0.5, prove=False)
    assert fallback.flow_tokens_per_s > 0 and "found nothing better than" in " ".join(fallback.notes)
