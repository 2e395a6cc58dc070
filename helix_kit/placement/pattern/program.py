"""The pattern program: how many of which stages, as an integer program with one row for each group of equal nodes.

    max  sum_p l_p y_p    s.t.  sum_p a_pg y_p <= n_g,   sum_p l_p y_p <= L,   y integer >= 0

Stage p has l_p layers and uses a_pg of the n_g nodes of group g. Every stage carries the target flow F, so a placement
of F exists if the optimum is L. Positions are not part of the program: the stages are laid one after another later.
"""

from __future__ import annotations

from collections.abc import Sequence

import pyomo.environ as pyo

from helix_kit.placement.pattern.stages import PatternStage
from helix_kit.placement.solvers import SolverSettings, solve_model
from helix_kit.placement.solvers.parts import (
    chosen_columns,
    define_depth_constraint,
    define_node_supply_constraints,
)


def build(
    stages: Sequence[PatternStage],
    supply: Sequence[int],
    num_layers: int,
    *,
    exact: bool = True,
    max_depth: int | None = None,
) -> pyo.ConcreteModel:
    """The program over `stages`, with `supply[g]` nodes of group g.

    With `exact` the stages have at most L layers together and as many as possible. Without, they have at least L and as
    few as possible; what is too much is cut off when they are laid out. With `max_depth` a request passes at most so
    many nodes.
    """
    model = pyo.ConcreteModel("pattern")
    model.count = pyo.Var(range(len(stages)), domain=pyo.NonNegativeIntegers)
    define_layers(model, stages, num_layers, exact)
    define_node_supply_constraints(model, [stage.uses for stage in stages], supply)
    if max_depth is not None:
        define_depth_constraint(model, [stage.depth for stage in stages], max_depth)
    return model


def define_layers(model: pyo.ConcreteModel, stages: Sequence[PatternStage], num_layers: int, exact: bool) -> None:
    """The objective, the layers of all stages together, and its limit L."""
    covered = sum(stage.length * model.count[p] for p, stage in enumerate(stages))
    if exact:
        model.layers = pyo.Objective(expr=covered, sense=pyo.maximize)
        model.at_most_all_layers = pyo.Constraint(expr=covered <= num_layers)
    else:
        model.layers = pyo.Objective(expr=covered, sense=pyo.minimize)
        model.at_least_all_layers = pyo.Constraint(expr=covered >= num_layers)


def choose(
    stages: Sequence[PatternStage],
    supply: Sequence[int],
    num_layers: int,
    settings: SolverSettings,
    *,
    max_depth: int | None = None,
) -> list[PatternStage] | None:
    """Stages that have L layers together, or else a few more; None when the solver finds none in time."""
    for exact in (True, False):
        model = build(stages, supply, num_layers, exact=exact, max_depth=max_depth)
        solution = solve_model(model, settings)
        if solution.value is not None and solution.value >= num_layers - 1e-6:
            return chosen_columns(model, stages)
        if settings.stop is not None and settings.stop():
            break
    return None
