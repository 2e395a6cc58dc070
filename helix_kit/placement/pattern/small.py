"""Small problems, finished exactly: every position of every node, layers covered instead of links counted.

With partial inference and links that do not bind, the maximum flow is the least, over layers, of the summed T of
the nodes that hold it. Where links bind, or requests may not enter part-way, that is an upper bound still:

    max F    s.t.  sum over (i, s, k) holding layer l of T_i(k) x_isk >= F,   sum over (s, k) of x_isk <= 1,  x binary.

One variable a position makes it hopeless for clusters (the relaxation is weak), and exact for a handful of nodes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pyomo.environ as pyo

from helix_kit.placement.groups import Group
from helix_kit.placement.solvers import SolverSettings, solve_model
from helix_kit.placement.solvers.parts import Slot, assign_nodes, chosen_columns, define_node_supply_constraints

MOST_VARIABLES = 800


@dataclass(frozen=True)
class Coverage:
    """The best placement found, if any, and a proven bound on the flow of every placement."""

    placement: dict[str, tuple[int, int]]
    bound_tokens_per_s: float | None


def is_small(groups: list[Group], num_layers: int) -> bool:
    """Whether the program is worth trying."""
    return sum(_positions(g, num_layers) for g in groups) <= MOST_VARIABLES


def _positions(group: Group, num_layers: int) -> int:
    return sum(num_layers - k + 1 for k in range(1, group.max_layers + 1))


def solve_coverage(
    groups: list[Group],
    num_layers: int,
    *,
    cap: float,
    solver: str,
    time_limit_s: float,
    stop: Callable[[], bool],
    seed: int = 0,
) -> Coverage:
    """Nodes of a group are interchangeable, so a variable counts how many of them stand in a position.

    `cap` is a proven bound on the flow: T above it is cut down to it.
    """
    spots = [
        (g, start, k)
        for g, group in enumerate(groups)
        for k in range(1, group.max_layers + 1)
        for start in range(num_layers - k + 1)
        if group.throughput[k - 1] > 0
    ]
    model = pyo.ConcreteModel("coverage")
    model.count = pyo.Var(
        range(len(spots)), domain=pyo.NonNegativeIntegers, bounds=lambda _, i: (0, groups[spots[i][0]].size)
    )
    model.flow = pyo.Var(bounds=(0, cap))
    model.most = pyo.Objective(expr=model.flow, sense=pyo.maximize)

    def layer_covered(m: pyo.ConcreteModel, layer: int) -> object:
        held = (
            min(groups[g].throughput[k - 1], cap) * m.count[i]
            for i, (g, start, k) in enumerate(spots)
            if start <= layer < start + k
        )
        return sum(held) >= m.flow

    uses = [[int(g == spot[0]) for g in range(len(groups))] for spot in spots]
    define_node_supply_constraints(model, uses, [group.size for group in groups])
    model.layer_covered = pyo.Constraint(range(num_layers), rule=layer_covered)
    solution = solve_model(model, SolverSettings(solver, time_limit_s, 1e-6, seed, stop))
    placement: dict[str, tuple[int, int]] = {}
    if solution.value:
        placement = assign_nodes((Slot(g, start, start + k) for g, start, k in chosen_columns(model, spots)), groups)
    return Coverage(placement, solution.bound)
