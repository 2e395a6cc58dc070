"""HiGHS takes a first incumbent, reports progress, and takes the same path at every run."""

import random

import pyomo.environ as pyo
import pytest

from helix_kit.placement.solvers import SolverSettings, solve_model


def assignment(size=8):
    """Costs at random, each row and column once: solved in a moment."""
    rng = random.Random(3)
    model = pyo.ConcreteModel()
    every = range(size)
    model.take = pyo.Var(every, every, domain=pyo.Binary)
    model.cost = pyo.Objective(expr=sum(rng.randint(1, 99) * model.take[i, j] for i in every for j in every))
    model.rows = pyo.Constraint(every, rule=lambda m, i: sum(m.take[i, j] for j in every) == 1)
    model.columns = pyo.Constraint(every, rule=lambda m, j: sum(m.take[i, j] for i in every) == 1)
    return model


def test_a_first_incumbent_is_kept_when_there_is_no_time():
    """Without time the solver has only what it is given."""
    model = assignment()
    for i, j in model.take:
        model.take[i, j] = int(i == j)
    given = pyo.value(model.cost)
    solution = solve_model(model, SolverSettings(stop=lambda: True, time_limit_s=0.01), warm_start=True)
    assert solution.value is not None and solution.value <= given


def test_progress_ends_at_the_solution():
    seen = []
    solution = solve_model(assignment(), SolverSettings(), progress=lambda value, bound: seen.append((value, bound)))
    assert solution.optimal
    values = [value for value, _ in seen if value is not None]
    assert values == sorted(values, reverse=True)
    assert min(values) == pytest.approx(solution.value)


def test_two_runs_are_the_same(tmp_path):
    first, second = assignment(), assignment()
    log = tmp_path / "highs.log"
    assert solve_model(first, SolverSettings(seed=5), log_path=log) == solve_model(second, SolverSettings(seed=5))
    assert [v.value for v in first.take.values()] == [v.value for v in second.take.values()]
    assert "HiGHS" in log.read_text()
