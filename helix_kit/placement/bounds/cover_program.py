"""The integer program of bounds B3 and B4: how many layers whole nodes can cover, in Pyomo."""

from __future__ import annotations

from collections.abc import Sequence

import pyomo.environ as pyo

from helix_kit.placement.bounds.knapsack import Cover
from helix_kit.placement.groups import Group
from helix_kit.placement.solvers import Solution, SolverSettings, solve_model
from helix_kit.placement.solvers.parts import define_node_supply_constraints


def max_covered_layers(
    groups: Sequence[Group],
    num_layers: int,
    covers: Sequence[Cover],
    settings: SolverSettings,
    *,
    pair_needed: bool = False,
) -> Solution:
    """max sum_p z_p, at most L, with z_p layers under cover p and y_gk nodes of group g that hold k layers each.

    With `pair_needed`, at least one layer is covered by two or more nodes.
    """
    sizes = sorted({item for cover in covers for item in cover})
    model = pyo.ConcreteModel("covers")
    model.layers = pyo.Var(range(len(covers)), domain=pyo.NonNegativeIntegers, bounds=(0, num_layers))
    model.count = pyo.Var(
        range(len(sizes)),
        domain=pyo.NonNegativeIntegers,
        bounds=lambda _, i: (0, groups[sizes[i][0]].size),
    )
    model.covered = pyo.Objective(expr=sum(model.layers.values()), sense=pyo.maximize)
    model.no_more_than_the_model = pyo.Constraint(expr=sum(model.layers.values()) <= num_layers)

    def layers_of_size(m: pyo.ConcreteModel, i: int) -> object:
        used = sum(cover[sizes[i]] * m.layers[p] for p, cover in enumerate(covers) if sizes[i] in cover)
        return used <= sizes[i][1] * m.count[i]

    model.layer_supply = pyo.Constraint(range(len(sizes)), rule=layers_of_size)
    uses = [[int(g == group) for g in range(len(groups))] for group, _ in sizes]
    define_node_supply_constraints(model, uses, [group.size for group in groups])
    if pair_needed:
        shared = [model.layers[p] for p, cover in enumerate(covers) if sum(cover.values()) > 1]
        model.a_shared_layer = pyo.Constraint(expr=sum(shared) >= 1 if shared else pyo.Constraint.Infeasible)
    return solve_model(model, settings)
