"""Pricing for the pattern program: the cheapest stage of each length, by dynamic programs.

With the price u_g of a node of group g, the cheapest lane of l layers that carries tau tokens/s costs

    c(l, tau) = min over (g, k) with T_g(k) >= tau of  u_g + c(l - k, tau),    c(0, tau) = 0,

and the cheapest stage of l layers that carries F is a knapsack cover: lanes j of rates tau_j at costs c(l, tau_j) whose
rates add up to F. The rates tried are the values of T(k) that occur, cut down to what the links allow.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from helix_kit.placement.annealing.compiled import is_cached
from helix_kit.placement.groups import Group
from helix_kit.placement.pattern.stages import Lane, PatternStage

UNITS = 2520
"""F in whole units for the knapsack over lanes. It is divisible by 2 to 10, so that equal shares are exact."""
MAX_LANES = 12
"""Lanes that carry less than F / MAX_LANES are not considered."""
MANY_NODES, MORE_LANES, FINER_UNITS = 2, 4, 8
"""When even the fastest node carries less than F / MANY_NODES, stages need many lanes. Then MORE_LANES times as many
are considered. Rounding so many rates down to whole units would cost 1 to 2 % of F, so units are FINER_UNITS times as
fine."""
USUAL_LENGTH = 24
"""Longest stage considered when no single node holds more layers."""


class _LaneTables(NamedTuple):
    """Cheapest nodes and lanes for each rate tau_j, in the order of `StagePricing.rates`."""

    group: NDArray[np.int64]
    """[j, k - 1]: the group of the cheapest node of size k that carries tau_j."""
    node_cost: NDArray[np.float64]
    """[j, k - 1]: the price of that node."""
    lane_cost: NDArray[np.float64]
    """[j, l]: c(l, tau_j)."""


class StagePricing:
    """The cheapest stage of each length that carries `target` tokens/s, for given prices of nodes.

    Parameters
    ----------
    groups
        All groups of nodes; stages refer to them by index.
    target
        F, in tokens/s.
    num_layers
        Length of the longest stage considered, at most.
    usable_groups
        Indices of the groups that the stages may use. None: all.
    lane_cap
        Tokens/s that a lane carries at most: what the links on its way to the next stage allow.
    link_cap
        Tokens/s that a link between two nodes of a lane allows. 0 leaves only lanes of a single node.

    Examples
    --------
    Two nodes of T(2) = 30 side by side carry 60; no single node does:

    >>> groups = [Group("L4", "east", ("a", "b"), (50.0, 30.0))]
    >>> [(s.length, s.uses) for s in StagePricing(groups, 60.0, 2).cheapest(np.ones(1))]
    [(1, (2,)), (2, (2,))]
    """

    def __init__(
        self,
        groups: Sequence[Group],
        target: float,
        num_layers: int,
        *,
        usable_groups: Collection[int] | None = None,
        lane_cap: float = math.inf,
        link_cap: float = math.inf,
    ) -> None:
        self.groups, self.target, self.link_cap, self.lane_cap = groups, target, link_cap, lane_cap
        self.usable = usable = list(range(len(groups)) if usable_groups is None else sorted(usable_groups))
        longest = max(groups[g].max_layers for g in usable)
        self.max_length = min(num_layers, max(USUAL_LENGTH, longest))
        cap = min(target, lane_cap)
        fastest = max((t for g in usable for t in groups[g].throughput), default=0.0)
        needs_many = fastest < target / MANY_NODES
        self.units = UNITS * (FINER_UNITS if needs_many else 1)
        slowest = target / (MAX_LANES * (MORE_LANES if needs_many else 1))
        rates = {min(t, cap) for g in usable for t in groups[g].throughput if min(t, cap) >= slowest}
        self.rates = sorted(rates, reverse=True)
        """Rates tau_j of lanes, the fastest first."""
        # Rounded down, so that lanes whose units add up to the target do carry the target.
        self.weights = [min(self.units, math.floor(r / target * self.units + 1e-9)) for r in self.rates]
        # allowed[j, g, k - 1]: whether a node of group g with k layers carries tau_j.
        sizes = min(longest, self.max_length)
        self.allowed = np.zeros((len(self.rates), len(groups), sizes), bool)
        for g in usable:
            table = np.minimum(np.array(groups[g].throughput[:sizes]), cap)
            self.allowed[:, g, : len(table)] = table[None, :] >= np.array(self.rates)[:, None] - 1e-12

    def cheapest(self, prices: NDArray[np.float64]) -> Iterator[PatternStage]:
        """The cheapest stage of each length for which there is one; `prices` has one price for each group."""
        tables = self._lane_tables(prices)
        stage_cost = self._stage_costs(tables.lane_cost)
        for length in range(1, self.max_length + 1):
            if np.isfinite(stage_cost[length, self.units]):
                yield PatternStage.of(length, self._trace(stage_cost[length], tables, length), self.groups)

    def _lane_tables(self, prices: NDArray[np.float64]) -> _LaneTables:
        """Costs of the cheapest node of each size and of the cheapest lane of each length, for each rate."""
        by_group = np.where(self.allowed, prices[None, :, None], np.inf)
        node = by_group.min(axis=1)
        count, sizes = node.shape
        lane = np.full((count, self.max_length + 1), np.inf)
        lane[:, 0] = 0.0
        for length in range(1, self.max_length + 1):
            reach = min(length, sizes)
            options = node[:, :reach] + lane[:, length - reach : length][:, ::-1]
            lane[:, length] = options.min(axis=1)
        # A lane of several nodes carries no more than the link between them, so faster ones have a single node.
        for j, rate in enumerate(self.rates):
            if rate > self.link_cap:
                lane[j, 1:] = np.inf
                lane[j, 1 : sizes + 1] = node[j]
        return _LaneTables(by_group.argmin(axis=1), node, lane)

    def _stage_costs(self, lane_cost: NDArray[np.float64]) -> NDArray[np.float64]:
        """table[l, f]: the least cost of lanes of length l whose rates add up to f units or more."""
        needed: list[int] = []
        cheapest_faster = np.full(self.max_length + 1, np.inf)
        for j, cost in enumerate(lane_cost):
            # A lane that at no length is cheaper than all faster ones is never needed.
            if not needed or (cost < cheapest_faster - 1e-12).any():
                needed.append(j)
                cheapest_faster = np.minimum(cheapest_faster, cost)
        weights = np.array(self.weights, np.int64)[needed]
        return _cover_costs()(np.ascontiguousarray(lane_cost[needed]), weights, self.units)

    def _trace(self, stage_cost: NDArray[np.float64], tables: _LaneTables, length: int) -> list[Lane]:
        """The lanes of the cheapest stage of this length; `stage_cost` is its row of the table."""
        lanes, level = [], self.units
        weights = np.array(self.weights)
        node, lane_cost = tables.node_cost, tables.lane_cost
        while level > 0:
            j = int(np.argmin(stage_cost[np.maximum(level - weights, 0)] + lane_cost[:, length]))
            level = max(0, level - self.weights[j])
            lane, remaining = [], length
            if self.rates[j] > self.link_cap:
                lane, remaining = [(int(tables.group[j, length - 1]), length)], 0
            while remaining > 0:
                reach = min(remaining, node.shape[1])
                k = int(np.argmin(node[j, :reach] + lane_cost[j, remaining - reach : remaining][::-1])) + 1
                lane.append((int(tables.group[j, k - 1]), k))
                remaining -= k
            lanes.append(tuple(lane))
        return lanes


def _cover_costs() -> Callable[[NDArray[np.float64], NDArray[np.int64], int], NDArray[np.float64]]:
    """The compiled table of costs if it can be called at once, or else `cover_costs_of_arrays`, which is slower.

    It cannot before its module is loaded: numba takes half a second, which the first targets do not give back.
    """
    if "helix_kit.placement.pattern.stage_kernel" not in sys.modules:
        return cover_costs_of_arrays
    from helix_kit.placement.pattern import stage_kernel

    # Once it was called it is loaded: numba's files need not be asked in each round of pricing.
    can_be_called = stage_kernel.cover_costs.signatures or is_cached(stage_kernel)
    return stage_kernel.cover_costs if can_be_called else cover_costs_of_arrays


def cover_costs_of_arrays(
    lane_cost: NDArray[np.float64], weights: NDArray[np.int64], units: int
) -> NDArray[np.float64]:
    """`stage_kernel.cover_costs` without compiled code: the same sums in the same order, so the same bytes."""
    table = np.full((lane_cost.shape[1], units + 1), np.inf)
    table[:, 0] = 0.0
    for cost, weight in zip(lane_cost, weights.tolist()):
        # 1, 2, 4, ... copies in turn give every number of copies.
        copies, shift = 1, 0
        while shift < units:
            shift = min(weight * copies, units)
            added = copies * cost[:, None]
            np.minimum(table[:, shift:], table[:, : units + 1 - shift] + added, out=table[:, shift:])
            np.minimum(table[:, 1:shift], added, out=table[:, 1:shift])
            copies *= 2
    return table
