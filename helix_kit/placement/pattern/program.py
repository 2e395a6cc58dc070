"""The pattern program: how many of which stages, in Pyomo, one row a group of equal nodes.

    max  sum_p l_p y_p    s.t.  sum_p a_pg y_p <= n_g,   sum_p l_p y_p <= L,   y integer >= 0

A flow of F is reached iff the optimum is L. Positions are gone: stages are laid one after another afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pyomo.environ as pyo

from helix_kit.placement.pattern.stages import Stage
from helix_kit.placement.solvers.solve import Solution, solve


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
    define_node_supply_constraints(model, stages, supply)
    if max_depth is not None:
        define_depth_constraint(model, stages, max_depth)
    return model


def define_node_supply_constraints(model: pyo.ConcreteModel, stages: Sequence[Stage], supply: Sequence[int]) -> None:
    """No more nodes of a group than there are."""

    def rule(m: pyo.ConcreteModel, g: int) -> object:
        used = [stage.uses[g] * m.count[p] for p, stage in enumerate(stages) if stage.uses[g]]
        return sum(used) <= supply[g] if used else pyo.Constraint.Skip

    model.node_supply = pyo.Constraint(range(len(supply)), rule=rule)


def define_depth_constraint(model: pyo.ConcreteModel, stages: Sequence[Stage], max_depth: int) -> None:
    """The longest lanes, one after another, are the longest pipeline."""
    model.depth = pyo.Constraint(expr=sum(s.depth * model.count[p] for p, s in enumerate(stages)) <= max_depth)


def choose(
    stages: Sequence[Stage],
    supply: Sequence[int],
    num_layers: int,
    *,
    solver: str,
    time_limit: float,
    stop: Callable[[], bool],
    seed: int = 0,
    max_depth: int | None = None,
) -> list[Stage] | None:
    """Stages that cover all L layers (or a few more), or None when the solver finds none in time."""
    for exact in (True, False):
        model = build(stages, supply, num_layers, exact=exact, max_depth=max_depth)
        solution = _solve(model, solver, time_limit, stop, seed)
        if solution.value is not None and solution.value >= num_layers - 1e-6:
            return [stage for p, stage in enumerate(stages) for _ in range(round(model.count[p].value))]
        if stop():
            break
    return None


def _solve(model: pyo.ConcreteModel, solver: str, time_limit: float, stop: Callable[[], bool], seed: int) -> Solution:
    return solve(model, solver, time_limit=time_limit, stop=stop, seed=seed)
