"""Small problems, solved exactly: a program with a variable for every layer range of every group.

With partial inference and links that do not bind, the maximum flow of a placement is the least, over layers, of the
summed T of the nodes that hold the layer (coverage). Where links bind, or requests may not enter a range part-way,
coverage is still an upper bound. The program maximises it over placements:

    max F    s.t.  sum over (g, s, k) that hold layer l of T_g(k) x_gsk >= F   for each layer l,
                   sum over (s, k) of x_gsk <= n_g   for each group g,   x integer >= 0

x_gsk counts the nodes of group g that hold k layers from layer s on. The program is hopeless for clusters, since its
relaxation is weak, but it is exact for a handful of nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pyomo.environ as pyo

from helix_kit.placement.groups import Group
from helix_kit.placement.problem import Problem
from helix_kit.placement.solvers import SolverSettings, solve_model
from helix_kit.placement.solvers.parts import Slot, assign_nodes, chosen_columns, define_node_supply_constraints

MAX_VARIABLES = 800
SpeedOf = Callable[[Group, int, int], float]
"""Tokens/s of a node of a group with the layers [start, end)."""


def by_length(group: Group, start: int, end: int) -> float:
    """The group's T(k), which the number of layers alone decides."""
    return group.throughput[end - start - 1]


def by_range(problem: Problem, group: Group, start: int, end: int) -> float:
    """The T of a range where layers differ, 0 where it does not fit."""
    node = group.nodes[0]
    return problem.range_throughput(node, start, end) if problem.fits(node, start, end) else 0.0


@dataclass(frozen=True)
class Coverage:
    """The best placement found, empty if there is none, and a proven bound on the flow of every placement."""

    placement: dict[str, tuple[int, int]]
    bound_tokens_per_s: float | None


def is_small(groups: Sequence[Group], num_layers: int) -> bool:
    """Whether the program has few enough variables to be tried."""
    return sum(num_layers - k + 1 for g in groups for k in range(1, g.max_layers + 1)) <= MAX_VARIABLES


def build(
    groups: Sequence[Group],
    slots: Sequence[Slot],
    num_layers: int,
    cap_tokens_per_s: float,
    speed_of: SpeedOf = by_length,
) -> pyo.ConcreteModel:
    """The program over the slots; T above the cap, a proven bound on the flow, is cut down to it."""
    model = pyo.ConcreteModel("coverage")
    model.count = pyo.Var(
        range(len(slots)), domain=pyo.NonNegativeIntegers, bounds=lambda _, i: (0, groups[slots[i].group].size)
    )
    model.flow = pyo.Var(bounds=(0, cap_tokens_per_s))
    model.coverage = pyo.Objective(expr=model.flow, sense=pyo.maximize)
    uses = [[int(g == slot.group) for g in range(len(groups))] for slot in slots]
    define_node_supply_constraints(model, uses, [group.size for group in groups])
    define_coverage_constraints(model, groups, slots, (num_layers, cap_tokens_per_s), speed_of)
    return model


def define_coverage_constraints(
    model: pyo.ConcreteModel,
    groups: Sequence[Group],
    slots: Sequence[Slot],
    layers_and_cap: tuple[int, float],
    speed_of: SpeedOf,
) -> None:
    """The nodes that hold a layer carry F together."""
    num_layers, cap_tokens_per_s = layers_and_cap

    def rule(m: pyo.ConcreteModel, layer: int) -> object:
        carried = (
            min(speed_of(groups[slot.group], slot.start, slot.end), cap_tokens_per_s) * m.count[i]
            for i, slot in enumerate(slots)
            if slot.start <= layer < slot.end
        )
        return sum(carried) >= m.flow

    model.layer_covered = pyo.Constraint(range(num_layers), rule=rule)


def solve_coverage(
    groups: Sequence[Group],
    num_layers: int,
    *,
    cap_tokens_per_s: float,
    settings: SolverSettings,
    speed_of: SpeedOf = by_length,
) -> Coverage:
    """The placement of the greatest coverage that the solver finds, and its bound.

    `cap_tokens_per_s` is a proven bound on the flow. `speed_of` gives tokens/s of a node of a group with a range, 0
    where it does not fit.
    """
    slots = [
        Slot(g, start, start + k)
        for g, group in enumerate(groups)
        for k in range(1, group.max_layers + 1)
        for start in range(num_layers - k + 1)
        if speed_of(group, start, start + k) > 0
    ]
    model = build(groups, slots, num_layers, cap_tokens_per_s, speed_of)
    solution = solve_model(model, settings)
    placement = assign_nodes(chosen_columns(model, slots), groups) if solution.value else {}
    return Coverage(placement, solution.bound)
