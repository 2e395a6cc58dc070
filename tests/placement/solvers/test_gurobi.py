"""Gurobi is named when it is missing, and agrees with the other solvers where it is licensed."""

import sys

import pyomo.environ as pyo
import pytest

import helix_kit as hk
from helix_kit.errors import InputError
from helix_kit.placement.solvers import SOLVERS, SolverSettings, check_solver, solve_model


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
