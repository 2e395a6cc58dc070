"""Upper bounds on the flow of any placement: what no plan can exceed, and why.

All but B4 hold for every network, with and without partial inference, because they look only at layers and
nodes: in a placement of flow F every layer is held by nodes whose T add up to F (they carry it), and a node with
k layers stands in k of these sums.

- ``compute``: sum_i max_k k T_i(k) / L, the published bound.
- ``B1``: what node i adds is at most max_k k min(T_i(k), F), and L layers need L F.
- ``B2``: a layer takes whole nodes, a *cover* of F; a linear program over covers, refuting F when they do not
  reach L layers.
- ``B3``: the same with whole numbers of nodes of each size and whole layers.

>>> from helix_kit.cluster import Cluster
>>> from helix_kit.model import Model
>>> from helix_kit.placement.problem import Problem
>>> problem = Problem.of(Cluster.preset("single24"), Model.preset("llama2-70b"))
>>> round(problem.compute_bound, 1), round(b1(groups_of(problem), problem.num_layers), 1)
(2803.9, 2045.6)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from helix_kit.placement import colgen
from helix_kit.placement.covers import Cover, Covers
from helix_kit.placement.groups import Group, groups_of
from helix_kit.placement.watch import Watch

PRECISION = 1e-5
"""Relative; a bisection ends when value and bound are this close."""
MOST_COVERS = 4000


def b1(groups: Sequence[Group], num_layers: int) -> float:
    """The largest F with sum_i max_k k min(T_i(k) / F, 1) >= L, in tokens/s."""

    def reached(flow: float) -> bool:
        shares = (g.size * max(k * min(t / flow, 1.0) for k, t in enumerate(g.throughput, 1)) for g in groups)
        return sum(shares) >= num_layers

    low, high = 0.0, sum(g.size * max(k * t for k, t in enumerate(g.throughput, 1)) for g in groups) / num_layers
    if high <= 0 or reached(high):
        return high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if reached(middle) else (low, middle)
    return high


def b2(
    groups: Sequence[Group], num_layers: int, *, low: float, high: float, over: Callable[[], bool] = lambda: False
) -> float:
    """The smallest F that the cover program refutes, searched between `low` (reached) and `high` (a bound)."""
    while high - low > PRECISION * high and not over():
        middle = (low + high) / 2
        refuted, _, _ = _cover_program(groups, num_layers, middle, over)
        low, high = (low, middle) if refuted else (middle, high)
    return high


def _cover_program(
    groups: Sequence[Group], num_layers: int, target: float, over: Callable[[], bool]
) -> tuple[bool, NDArray[np.float64], Covers]:
    """(whether B2 refutes `target`, duals scaled so that the cheapest cover costs 1, covers)."""
    covers = Covers(groups, target)
    supply = np.array([g.size for g in groups], float)
    state: dict[str, NDArray[np.float64]] = {}
    best = [np.inf]

    def price(duals: NDArray[np.float64]) -> list[tuple[float, list[float]]]:
        cost, cover = covers.cheapest(duals)
        # Any prices bound the number of layers: supply . u / (cheapest cover). Keep the best (Farley).
        if cost > 0 and float(supply @ duals) / cost < best[0]:
            best[0], state["duals"] = float(supply @ duals) / cost, duals / cost
        return [] if best[0] < num_layers - 1e-7 else [(1.0, _uses(cover, len(groups)))]

    start = [(1.0, _uses(cover, len(groups))) for cover in _single_group_covers(groups, target)]
    colgen.solve(list(supply), start, price, enough=num_layers * (1 + 1e-6), over=over)
    if "duals" not in state:
        price(np.ones(len(groups)))
    return best[0] < num_layers - 1e-7, state["duals"], covers


def _uses(cover: Cover, rows: int) -> list[float]:
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


def b3(
    groups: Sequence[Group],
    num_layers: int,
    *,
    low: float,
    high: float,
    solver: str = "highs",
    watch: Watch | None = None,
    rounds: int = 6,
    time_limit: float = 10.0,
) -> float:
    """Like `b2` with whole nodes and layers: tries to refute what lies just above `low`, then bisects.

    `time_limit` seconds for each of at most `rounds` small integer programs.
    """
    watch = watch or Watch(time_limit * rounds)
    target = low * (1 + 2 * PRECISION)
    for _ in range(rounds):
        if target >= high or watch.over():
            break
        if _refuted_in_integers(groups, num_layers, target, solver, min(time_limit, watch.left), watch):
            high = target
        else:
            low = target
        if high - low <= 2 * PRECISION * high:
            break
        target = (low + high) / 2
    return high


def _refuted_in_integers(
    groups: Sequence[Group], num_layers: int, target: float, solver: str, time_limit: float, watch: Watch
) -> bool:
    refuted, duals, covers = _cover_program(groups, num_layers, target, watch.over)
    if refuted:
        return True
    # Covers cost 1 or more and all that is used costs V = supply . u at most, so one that stands in a solution
    # with L layers costs at most 1 + V - L.
    slack = float(np.array([g.size for g in groups]) @ duals) - num_layers
    columns = covers.within(duals, 1 + slack + 1e-9, MOST_COVERS, watch.over)
    if columns is None:
        return False
    if not columns:
        return True
    from helix_kit.placement.cover_milp import most_layers

    solution = most_layers(groups, num_layers, columns, solver, time_limit, watch.stopped)
    return solution.infeasible or (solution.bound is not None and solution.bound < num_layers - 1e-6)


__all__ = ["b1", "b2", "b3", "groups_of"]
