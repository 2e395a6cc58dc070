"""Constraints that programs share, and nodes for slots."""

import pyomo.environ as pyo
import pytest

from helix_kit.placement.groups import Group
from helix_kit.placement.solvers import SolverSettings, solve_model
from helix_kit.placement.solvers.parts import (
    Slot,
    assign_nodes,
    chosen_columns,
    define_depth_constraint,
    define_node_supply_constraints,
)


def program(max_depth=None):
    """Columns worth 3 and 2 that use (2, 0) and (1, 1) of the 5 and 2 nodes of two groups; a third group is unused."""
    model = pyo.ConcreteModel()
    model.count = pyo.Var(range(2), domain=pyo.NonNegativeIntegers)
    model.value = pyo.Objective(expr=3 * model.count[0] + 2 * model.count[1], sense=pyo.maximize)
    define_node_supply_constraints(model, [(2, 0, 0), (1, 1, 0)], [5, 2, 4])
    if max_depth is not None:
        define_depth_constraint(model, [2, 1], max_depth)
    return model


@pytest.mark.parametrize(("max_depth", "counts"), [(None, "aab"), (3, "ab"), (1, "b"), (0, "")])
def test_nodes_and_depth_limit_what_is_chosen(max_depth, counts):
    """By hand: two of the first and one of the second use (5, 1) nodes and 5 of depth."""
    model = program(max_depth)
    solve_model(model, SolverSettings())
    assert "".join(chosen_columns(model, "ab")) == counts
    # No constraint for the group that nothing uses.
    assert list(model.node_supply) == [0, 1]


def test_nodes_of_a_group_are_taken_in_order():
    groups = [Group("A", "", ("a0", "a1"), (1.0,)), Group("B", "", ("b0",), (1.0,))]
    slots = [Slot(0, 3, 4), Slot(1, 0, 2), Slot(0, 0, 1)]
    assert assign_nodes(slots, groups) == {"a0": (3, 4), "b0": (0, 2), "a1": (0, 1)}
