"""The integer program of bound B3: how many layers whole nodes can cover, in Pyomo."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pyomo.environ as pyo

from helix_kit.placement.bounds.covers import Cover
from helix_kit.placement.groups import Group
from helix_kit.placement.solvers.solve import Solution, solve


def most_layers(
    groups: Sequence[Group],
    num_layers: int,
    covers: Sequence[Cover],
    solver: str,
    time_limit: float,
    stop: Callable[[], bool],
    need_pair: bool = False,
) -> Solution:
    """max sum z_p, z_p layers under cover p, with y_gk nodes of group g holding k layers each; at most L.

    With `need_pair`, at least one layer is covered by two or more nodes.
    """
    sizes = sorted({item for cover in covers for item in cover})
    model = pyo.ConcreteModel("covers")
    model.layers = pyo.Var(range(len(covers)), domain=pyo.NonNegativeIntegers, bounds=(0, num_layers))
    model.nodes = pyo.Var(
        range(len(sizes)),
        domain=pyo.NonNegativeIntegers,
        bounds=lambda _, i: (0, groups[sizes[i][0]].size),
    )
    model.most = pyo.Objective(expr=sum(model.layers.values()), sense=pyo.maximize)
    model.no_more_than_the_model = pyo.Constraint(expr=sum(model.layers.values()) <= num_layers)

    def layers_of_size(m: pyo.ConcreteModel, i: int) -> object:
        used = sum(cover[sizes[i]] * m.layers[p] for p, cover in enumerate(covers) if sizes[i] in cover)
        return used <= sizes[i][1] * m.nodes[i]

    def nodes_of_group(m: pyo.ConcreteModel, g: int) -> object:
        members = [m.nodes[i] for i, (group, _) in enumerate(sizes) if group == g]
        return sum(members) <= groups[g].size if members else pyo.Constraint.Skip

    model.layer_supply = pyo.Constraint(range(len(sizes)), rule=layers_of_size)
    model.node_supply = pyo.Constraint(range(len(groups)), rule=nodes_of_group)
    if need_pair:
        shared = [model.layers[p] for p, cover in enumerate(covers) if sum(cover.values()) > 1]
        model.a_shared_layer = pyo.Constraint(expr=sum(shared) >= 1 if shared else pyo.Constraint.Infeasible)
    return solve(model, solver, time_limit=time_limit, stop=stop)
