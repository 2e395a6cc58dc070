"""Bounds B2 and B3, covers: each layer takes whole nodes whose throughputs add up to the flow.

B2 lets the numbers of covers and nodes be fractions (a linear program), B3 wants whole numbers of layers under each
cover and of nodes of each size (an integer program). Both search for the smallest flow F that the program refutes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from helix_kit.placement.bounds.knapsack import Cover, CoverKnapsack
from helix_kit.placement.bounds.spread import spread_bound
from helix_kit.placement.groups import Group
from helix_kit.placement.solvers.columns import Column, solve_columns
from helix_kit.placement.solvers.job import SolverSettings
from helix_kit.placement.watch import Watch

PRECISION = 1e-5
"""Relative. A bisection ends when value and bound are this close."""
MAX_COVERS = 4000
"""An integer program with more covers is not tried."""
MAX_PROGRAMS = 6
"""Integer programs solved for B3."""
BONUSES = (0.25, 0.5, 1.0, 1.5, 2.0, 3.0)
"""Multipliers tried for B4's extra row. Each of them gives a valid bound."""
MAX_REMEMBERED = 256
_remembered: dict[tuple[tuple[Group, ...], int], float] = {}
"""Finished values of `cover_bound_of`."""


@dataclass(frozen=True)
class ProofEffort:
    """How the integer programs of a bound are solved.

    Attributes
    ----------
    watch
        The clock of the whole proof.
    solver
        ``highs``, ``glpk`` or ``gurobi``.
    program_time_limit_s
        Seconds for each program.

    Examples
    --------
    >>> ProofEffort(Watch(60.0)).program_time_limit_s
    5.0
    """

    watch: Watch
    solver: str = "highs"
    program_time_limit_s: float = 5.0


def never() -> bool:
    """A `should_stop` that never stops."""
    return False


def cover_bound(
    groups: Sequence[Group], num_layers: int, *, low: float, high: float, should_stop: Callable[[], bool] = never
) -> float:
    """B2: the smallest flow that the linear program over covers refutes.

    A layer takes whole nodes whose T add up to F, a *cover*. The program refutes F when fractions of covers, made of
    the nodes that there are, do not reach L layers.

    Parameters
    ----------
    groups
        The nodes.
    num_layers
        L, the layers of the model.
    low, high
        A flow known to be reached and a known bound, in tokens/s. The search is between them.
    should_stop
        Once it returns True, the bound found so far is returned.

    Returns
    -------
    float
        Tokens/s that no placement exceeds, whatever the network; at most `high`.

    Examples
    --------
    Three nodes for two layers: a flow above 10 takes two nodes for each layer. B1 allows 3 / 2 of 10.

    >>> group = Group("a", "r", ("a0", "a1", "a2"), (10.0,))
    >>> round(spread_bound([group], 2), 2), round(cover_bound([group], 2, low=0.0, high=15.0), 2)
    (15.0, 10.0)
    """
    groups = merge_kinds(groups)
    return lowest_refuted(
        lambda target: solve_cover_program(groups, num_layers, target, should_stop).refuted,
        low=low,
        high=high,
        first=(low + high) / 2,
        gap=PRECISION,
        should_stop=should_stop,
    )


def lowest_refuted(
    refutes: Callable[[float], bool],
    *,
    low: float,
    high: float,
    first: float,
    gap: float,
    max_questions: float = math.inf,
    should_stop: Callable[[], bool] = never,
) -> float:
    """The smallest flow that is found to be refuted between `low` and `high`, which counts as refuted.

    The first question is about `first`, the others bisect. The search ends when the two values differ by `gap`
    (relative), after `max_questions`, or when `should_stop` says so.
    """
    target, asked = first, 0
    while asked < max_questions and target < high and high - low > gap * high and not should_stop():
        low, high = (low, target) if refutes(target) else (target, high)
        target, asked = (low + high) / 2, asked + 1
    return high


def cover_bound_of(groups: tuple[Group, ...], num_layers: int, should_stop: Callable[[], bool] = never) -> float:
    """B2 of these nodes alone, with nothing known before. Values are remembered, for they are asked for often.

    Parameters
    ----------
    groups
        The nodes.
    num_layers
        L, the layers of the model.
    should_stop
        Once it returns True, the bound found so far is returned, which may be larger and is not remembered.

    Returns
    -------
    float
        Tokens/s that no placement of these nodes exceeds.

    Examples
    --------
    >>> round(cover_bound_of((Group("a", "r", ("a0", "a1", "a2"), (10.0,)),), 2), 2)
    10.0
    """
    if (groups, num_layers) in _remembered:
        return _remembered[groups, num_layers]
    bound = cover_bound(groups, num_layers, low=0.0, high=spread_bound(groups, num_layers), should_stop=should_stop)
    if not should_stop():
        if len(_remembered) >= MAX_REMEMBERED:
            _remembered.pop(next(iter(_remembered)))
        _remembered[groups, num_layers] = bound
    return bound


def whole_cover_bound(
    groups: Sequence[Group], num_layers: int, *, low: float, high: float, effort: ProofEffort
) -> float:
    """B3: like B2, with whole numbers of nodes of each size and whole layers under each cover.

    The first program tries to refute what lies just above `low`, the next ones bisect. At most `MAX_PROGRAMS` are
    solved.

    Parameters
    ----------
    groups
        The nodes.
    num_layers
        L, the layers of the model.
    low, high
        A flow known to be reached and a known bound, in tokens/s. The search is between them.
    effort
        Solver, clock and time limit of each program.

    Returns
    -------
    float
        Tokens/s that no placement exceeds, whatever the network; at most `high`.

    Examples
    --------
    >>> group = Group("a", "r", ("a0", "a1", "a2"), (10.0,))
    >>> whole_cover_bound([group], 2, low=9.0, high=10.0, effort=ProofEffort(Watch(10.0)))
    10.0
    """
    groups = merge_kinds(groups)
    return lowest_refuted(
        lambda target: is_refuted(groups, num_layers, target, effort),
        low=low,
        high=high,
        first=low * (1 + 2 * PRECISION),
        gap=2 * PRECISION,
        max_questions=MAX_PROGRAMS,
        should_stop=effort.watch.is_over,
    )


def forget() -> None:
    """Drop the values that `cover_bound_of` remembers, so that a search that counts its work starts alike."""
    _remembered.clear()


def merge_kinds(groups: Sequence[Group]) -> list[Group]:
    """Groups of the same kind as one group. Covers do not depend on where a node is, and programs have fewer rows."""
    nodes: dict[tuple[str, tuple[float, ...]], tuple[str, ...]] = {}
    for group in groups:
        key = group.kind, group.throughput
        nodes[key] = nodes.get(key, ()) + group.nodes
    return [Group(kind, "", names, table) for (kind, table), names in nodes.items()]


class CoverProgram(NamedTuple):
    """What the linear program over covers says of a flow."""

    refuted: bool
    """Whether the covers cannot reach L layers."""
    duals: NDArray[np.float64]
    """Price of a node of each group, shape (groups,), scaled so that the cheapest cover costs 1."""
    knapsack: CoverKnapsack


def solve_cover_program(
    groups: Sequence[Group],
    num_layers: int,
    target: float,
    should_stop: Callable[[], bool],
    bonus: float = 0.0,
    *,
    to_optimum: bool = False,
) -> CoverProgram:
    """Solve the linear program over covers of `target` tokens/s.

        max sum_p z_p    s.t.  sum_p sum_k c_pgk / k z_p <= n_g,   z >= 0

    z_p layers are under cover p, which takes c_pgk nodes of group g with k layers each.

    With a `bonus`, a layer under a cover of two or more nodes counts 1 + bonus, and one such layer must exist, which
    costs the bonus once: the Lagrangian form of B4's extra row.

    `to_optimum` goes on once L layers are reached, so that the duals are those of the optimum.
    """
    knapsack = CoverKnapsack(groups, target)
    supply = np.array([g.size for g in groups], float)
    reach: float = np.inf
    scaled: NDArray[np.float64] | None = None

    def price(duals: NDArray[np.float64]) -> list[Column]:
        nonlocal reach, scaled
        cost, cover = knapsack.cheapest(duals)
        columns = [Column(1.0, _uses(cover, len(groups)))]
        if bonus:
            pair_cost, pair = knapsack.cheapest(duals, at_least=2)
            cost = min(cost, pair_cost / (1 + bonus))
            columns.append(Column(1.0 + bonus, _uses(pair, len(groups))))
        # Any prices bound the number of layers: supply . u / (cost of the cheapest cover) (Farley 1990).
        if cost > 0 and float(supply @ duals) / cost - bonus < reach:
            reach, scaled = float(supply @ duals) / cost - bonus, duals / cost
        return [] if reach < num_layers - 1e-7 else columns

    start = [Column(1.0, _uses(cover, len(groups))) for cover in _single_group_covers(groups, target)]
    enough = np.inf if bonus or to_optimum else num_layers * (1 + 1e-6)
    solve_columns(list(supply), start, price, enough=enough, should_stop=should_stop)
    if scaled is None:
        price(np.ones(len(groups)))
    assert scaled is not None, "a cover has a positive price where all nodes do"
    return CoverProgram(reach < num_layers - 1e-7, scaled, knapsack)


def _uses(cover: Cover, rows: int) -> list[float]:
    """Nodes of each group that one layer under `cover` takes."""
    uses = [0.0] * rows
    for (g, k), count in cover.items():
        uses[g] += count / k
    return uses


def _single_group_covers(groups: Sequence[Group], target: float) -> list[Cover]:
    return [
        {(index, k): int(np.ceil(target / t - 1e-12))}
        for index, group in enumerate(groups)
        for k, t in enumerate(group.throughput, 1)
        if t > 0
    ]


def is_refuted(
    groups: Sequence[Group], num_layers: int, target: float, effort: ProofEffort, *, pair_needed: bool = False
) -> bool:
    """Whether whole nodes and layers are proven not to carry `target` tokens/s.

    With `pair_needed`, one layer at least must be under a cover of two or more nodes.
    """
    watch, limit_s = effort.watch, effort.program_time_limit_s
    refuted, duals, knapsack = solve_cover_program(groups, num_layers, target, watch.is_over)
    if refuted:
        return True
    if pair_needed and any(
        solve_cover_program(groups, num_layers, target, watch.is_over, bonus).refuted for bonus in BONUSES
    ):
        return True
    # Each cover costs at least 1, and all that is used costs at most V = supply . u. So a cover in a solution with L
    # layers costs at most 1 + V - L.
    slack = float(np.array([g.size for g in groups]) @ duals) - num_layers
    # Hundreds of nodes have so many covers that listing them may take as long as the program over them.
    listing = watch.for_part(limit_s)
    covers = knapsack.within(duals, 1 + slack + 1e-9, MAX_COVERS, listing.is_over)
    if covers is None:
        return False
    if not covers:
        return True
    # Pyomo takes half a second to load: only a bound that solves an integer program loads it.
    from helix_kit.placement.bounds.cover_program import max_covered_layers

    if pair_needed:
        covers += _with_a_second_node(covers, knapsack, duals, 1 + slack + 1e-9)
    limit_s, stop = watch.solver_limit(limit_s)
    settings = SolverSettings(effort.solver, time_limit_s=limit_s, stop=stop)
    solution = max_covered_layers(groups, num_layers, covers, settings, pair_needed=pair_needed)
    return solution.infeasible or (solution.bound is not None and solution.bound < num_layers - 1e-6)


def _with_a_second_node(
    covers: Sequence[Cover], knapsack: CoverKnapsack, duals: NDArray[np.float64], limit: float
) -> list[Cover]:
    """Covers of a single node with any other node beside it, as far as they cost no more than `limit`."""
    costs = {(g, k): float(duals[g]) / k for g, k, _ in knapsack.items}
    pairs = []
    for cover in covers:
        if sum(cover.values()) == 1:
            (item,) = cover
            for other, cost in costs.items():
                if costs[item] + cost <= limit:
                    pairs.append({item: 2} if other == item else {item: 1, other: 1})
    return pairs


__all__ = ["PRECISION", "ProofEffort", "cover_bound", "cover_bound_of", "whole_cover_bound"]
