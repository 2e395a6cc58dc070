"""The pattern program: how many of which stages, in Pyomo, one row a group of equal nodes.

    max  sum_p l_p y_p    s.t.  sum_p a_pg y_p <= n_g,   sum_p l_p y_p <= L,   y integer >= 0

A flow of F is reached iff the optimum is L. Positions are gone: stages are laid one after another afterwards.
"""

from __future__ import annotations

from collections.abc import Sequence

import pyomo.environ as pyo

from helix_kit.placement.pattern.stages import Stage
from helix_kit.placement.solvers import SolverSettings, solve_model
from helix_kit.placement.solvers.parts import (
    chosen_columns,
    define_depth_constraint,
    define_node_supply_constraints,
)


def build(
    stages: Sequence[Stage],
    supply: Sequence[int],
    num_layers: int,
    *,
    exact: bool = True,
    max_depth: int | None = None,
) -> pyo.ConcreteModel:
    """The model; with `exact` false, stages may reach past L and the least excess is sought (it is cut off later)."""
    model = pyo.ConcreteModel("pattern")
    model.count = pyo.Var(range(len(stages)), domain=pyo.NonNegativeIntegers)
    covered = sum(stage.length * model.count[p] for p, stage in enumerate(stages))
    if exact:
        model.layers = pyo.Objective(expr=covered, sense=pyo.maximize)
        model.no_more_than_the_model = pyo.Constraint(expr=covered <= num_layers)
    else:
        model.layers = pyo.Objective(expr=covered, sense=pyo.minimize)
        model.whole_model = pyo.Constraint(expr=covered >= num_layers)
    define_node_supply_constraints(model, [stage.uses for stage in stages], supply)
    if max_depth is not None:
        define_depth_constraint(model, [stage.depth for stage in stages], max_depth)
    return model


def choose(
    stages: Sequence[Stage],
    supply: Sequence[int],
    num_layers: int,
    settings: SolverSettings,
    *,
    max_depth: int | None = None,
) -> list[Stage] | None:
    """Stages that cover all L layers (or a few more), or None when the solver finds none in time."""
    for exact in (True, False):
        model = build(stages, supply, num_layers, exact=exact, max_depth=max_depth)
        solution = solve_model(model, settings)
        if solution.value is not None and solution.value >= num_layers - 1e-6:
            return chosen_columns(model, stages)
        if settings.stop is not None and settings.stop():
            break
    return None
