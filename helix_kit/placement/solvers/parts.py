"""Parts that several integer programs share: constraints over columns, and nodes for the columns chosen.

The programs choose how many y_p of each column p to use, such as a stage of the pattern program. A model holds these
numbers as the variable ``count``, indexed 0, 1, ... like the columns.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple, TypeVar

import pyomo.environ as pyo

from helix_kit.placement.groups import Group

C = TypeVar("C")


class Slot(NamedTuple):
    """Layers [start, end) to be held by some node of a group, given by the group's index."""

    group: int
    start: int
    end: int


def define_node_supply_constraints(
    model: pyo.ConcreteModel, uses: Sequence[Sequence[int]], supply: Sequence[int]
) -> None:
    """No more nodes of a group than it has: sum_p a_pg y_p <= n_g.

    `uses[p][g]` is a_pg, the nodes of group g in one unit of column p; `supply[g]` is n_g.
    """

    def rule(m: pyo.ConcreteModel, g: int) -> object:
        used = [use[g] * m.count[p] for p, use in enumerate(uses) if use[g]]
        return sum(used) <= supply[g] if used else pyo.Constraint.Skip

    model.node_supply = pyo.Constraint(range(len(supply)), rule=rule)


def define_depth_constraint(model: pyo.ConcreteModel, depths: Sequence[int], max_depth: int) -> None:
    """At most `max_depth` nodes on a request's way: sum_p d_p y_p <= D.

    `depths[p]` is d_p, the nodes in the longest lane of column p. Columns stand in a row, so their longest lanes make
    up the longest way.
    """
    model.depth = pyo.Constraint(expr=sum(d * model.count[p] for p, d in enumerate(depths)) <= max_depth)


def chosen_columns(model: pyo.ConcreteModel, columns: Sequence[C]) -> list[C]:
    """The columns of a solved model, each as often as its count says."""
    return [column for p, column in enumerate(columns) for _ in range(round(model.count[p].value))]


def assign_nodes(slots: Iterable[Slot], groups: Sequence[Group]) -> dict[str, tuple[int, int]]:
    """A placement with a node for each slot; the nodes of a group are taken in the group's order."""
    supply = [iter(group.nodes) for group in groups]
    return {next(supply[slot.group]): (slot.start, slot.end) for slot in slots}
