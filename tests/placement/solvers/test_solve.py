"""Models are solved alike by all solvers; incumbents are kept at the limit and on Stop."""

import random
import time

import pyomo.environ as pyo
import pytest

from helix_kit.placement.solvers import SolverSettings, solve_model, write_lp

ITEMS, ROWS, CAPACITY = 150, 30, 3000


def knapsack():
    """Thirty knapsacks at once: a first incumbent comes within a second, a proof takes hours."""
    rng = random.Random(1)
    model = pyo.ConcreteModel()
    model.take = pyo.Var(range(ITEMS), domain=pyo.Binary)
    model.value = pyo.Objective(expr=sum(rng.randint(10, 99) * model.take[i] for i in range(ITEMS)), sense=pyo.maximize)
    model.capacity = pyo.ConstraintList()
    for _ in range(ROWS):
        model.capacity.add(sum(rng.randint(10, 99) * model.take[i] for i in range(ITEMS)) <= CAPACITY)
    return model


def is_kept(model, solution):
    """The incumbent is loaded, whole, feasible, and worth what the solver says."""
    assert solution.value == pytest.approx(pyo.value(model.value))
    assert solution.value > 0
    assert {round(v.value, 9) for v in model.take.values()} <= {0, 1}
    assert all(pyo.value(row.body) <= CAPACITY + 1e-6 for row in model.capacity.values())
    return True


@pytest.mark.parametrize("solver", ["highs", "glpk"])
def test_incumbent_and_bound_are_kept_at_the_time_limit(solver):
    model = knapsack()
    solution = solve_model(model, SolverSettings(solver, time_limit_s=1.5))
    assert is_kept(model, solution)
    assert solution.bound > solution.value
    assert not solution.optimal


@pytest.mark.parametrize("solver", ["highs", "glpk"])
def test_incumbent_is_kept_when_stopped(solver):
    model, seen = knapsack(), []

    def stop():
        # The first incumbent and a moment to write it down.
        return bool(seen) and time.perf_counter() - seen[0] > 0.5

    def progress(value, bound):
        if value is not None:
            seen.append(time.perf_counter())

    # A proof takes hours: without the stop this would not end.
    solution = solve_model(model, SolverSettings(solver, time_limit_s=3600, stop=stop), progress=progress)
    assert not solution.optimal
    assert is_kept(model, solution)


@pytest.mark.parametrize("solver", ["highs", "glpk"])
def test_a_program_without_solution_is_proven_to_have_none(solver):
    model = pyo.ConcreteModel()
    model.x = pyo.Var(domain=pyo.Binary)
    model.value = pyo.Objective(expr=model.x, sense=pyo.maximize)
    model.capacity = pyo.Constraint(expr=3 * model.x >= 4)
    solution = solve_model(model, SolverSettings(solver))
    assert solution.infeasible and solution.value is None and not solution.values
    assert model.x.value is None


@pytest.mark.parametrize("solver", ["highs", "glpk"])
def test_linear_programs_have_fractions(solver):
    model = pyo.ConcreteModel()
    model.x = pyo.Var(bounds=(0, 9))
    model.value = pyo.Objective(expr=3 * model.x, sense=pyo.maximize)
    model.capacity = pyo.Constraint(expr=2 * model.x <= 7)
    solution = solve_model(model, SolverSettings(solver))
    assert (solution.value, model.x.value) == (pytest.approx(10.5), pytest.approx(3.5))
    assert not solution.infeasible


def test_names_in_a_written_file_are_the_models(tmp_path):
    write_lp(knapsack(), tmp_path / "knapsack.lp")
    text = (tmp_path / "knapsack.lp").read_text()
    assert "take(0)" in text and "capacity(30)" in text
