"""Models are solved alike by all solvers; incumbents are kept at the limit and on Stop; a missing solver is named."""

import random
import sys
import time

import pyomo.environ as pyo
import pytest

import helix_kit as hk
from helix_kit.errors import InputError
from helix_kit.placement.solvers import SOLVERS, SolverSettings, check_solver, solve_model

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

    started = time.perf_counter()
    solution = solve_model(model, SolverSettings(solver, time_limit_s=100, stop=stop), progress=progress)
    assert time.perf_counter() - started < 60
    assert is_kept(model, solution)


def test_missing_gurobi_is_refused_by_name(monkeypatch):
    monkeypatch.setitem(sys.modules, "gurobipy", None)
    with pytest.raises(InputError, match="pip install gurobipy") as error:
        hk.plan("single24", "llama2-70b", solver="gurobi")
    assert (error.value.field, error.value.value) == ("solver", "gurobi")


def test_gurobi_agrees_where_it_is_licensed():
    try:
        check_solver("gurobi")
    except InputError as error:
        pytest.skip(str(error))
    model = pyo.ConcreteModel()
    model.x = pyo.Var(domain=pyo.NonNegativeIntegers, bounds=(0, 9))
    model.value = pyo.Objective(expr=3 * model.x, sense=pyo.maximize)
    model.capacity = pyo.Constraint(expr=2 * model.x <= 7)
    assert {solve_model(model, SolverSettings(name)).value for name in SOLVERS} == {9.0}
