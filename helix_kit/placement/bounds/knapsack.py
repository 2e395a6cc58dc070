"""Covers of a layer: sets of nodes whose T add up to a target flow F. Bounds B2 to B4 count with them.

A node with k layers covers k of them, so one layer takes 1 / k of it. The cheapest cover is a knapsack problem, solved
by a dynamic program over the flow in whole units.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from helix_kit.placement.groups import Group

UNITS = 8192
"""F is this many units. T is rounded up to whole units, which can weaken a bound but never make it wrong."""
Cover = dict[tuple[int, int], int]
"""(group, size k) -> how many such nodes carry the layer."""


class CoverKnapsack:
    """Covers of `target` tokens/s, where a node of group g with k layers costs u_g / k."""

    def __init__(self, groups: Sequence[Group], target: float) -> None:
        best: dict[tuple[int, int], int] = {}
        for index, group in enumerate(groups):
            for k, t in enumerate(group.throughput, 1):
                if t > 0:
                    weight = min(UNITS, math.ceil(t / target * UNITS - 1e-9))
                    best[index, weight] = max(best.get((index, weight), 0), k)
        # A node with more layers that weighs as much costs less a layer, so the smaller one is not needed.
        self.items = sorted(
            (index, k, weight)
            for (index, weight), k in best.items()
            if not any(i == index and w >= weight and other > k for (i, w), other in best.items())
        )

    def costs(self, duals: NDArray[np.float64]) -> list[float]:
        """Cost of each item."""
        return [float(duals[g]) / k for g, k, _ in self.items]

    def table(self, costs: Sequence[float]) -> NDArray[np.float64]:
        """table[f]: least cost of items that weigh f or more, f = 0..UNITS."""
        table = np.full(UNITS + 1, np.inf)
        table[0] = 0.0
        for (_, _, weight), cost in zip(self.items, costs):
            copies = 1  # 1, 2, 4, ... copies add up to every number of copies
            while True:
                shift = min(weight * copies, UNITS)
                shifted = np.concatenate([np.zeros(shift), table[: UNITS + 1 - shift]])
                np.minimum(table, shifted + copies * cost, out=table)
                if shift == UNITS:
                    break
                copies *= 2
        return table

    def cheapest(self, duals: NDArray[np.float64], at_least: int = 1) -> tuple[float, Cover]:
        """Least cost of a cover by `at_least` (1 or 2) nodes, and the cover."""
        costs = self.costs(duals)
        table = self.table(costs)
        if at_least == 1:
            return float(table[UNITS]), self._trace(table, costs, UNITS)
        # Any item may be the first of the nodes. If it covers F alone, the cheapest item is the second.
        cheapest = min(range(len(costs)), key=costs.__getitem__)
        totals = [
            cost + (costs[cheapest] if weight == UNITS else float(table[UNITS - weight]))
            for (_, _, weight), cost in zip(self.items, costs)
        ]
        first = int(np.argmin(totals))
        weight = self.items[first][2]
        cover = {self.items[cheapest][:2]: 1} if weight == UNITS else self._trace(table, costs, UNITS - weight)
        key = self.items[first][:2]
        return totals[first], {**cover, key: cover.get(key, 0) + 1}

    def _trace(self, table: NDArray[np.float64], costs: Sequence[float], level: int) -> Cover:
        cover: Cover = {}
        while level > 0:
            after = [float(table[max(0, level - w)]) + c for (_, _, w), c in zip(self.items, costs)]
            chosen = int(np.argmin(after))
            g, k, weight = self.items[chosen]
            cover[g, k] = cover.get((g, k), 0) + 1
            level = max(0, level - weight)
        return cover

    def within(
        self, duals: NDArray[np.float64], limit: float, max_covers: int, should_stop: Callable[[], bool] = lambda: False
    ) -> list[Cover] | None:
        """Every minimal cover that costs at most `limit`; None when there are too many, or it is told to stop."""
        costs = self.costs(duals)
        table = self.table(costs)
        found: list[Cover] = []
        steps = 0
        stack: list[tuple[int, int, float, tuple[int, ...]]] = [(0, UNITS, 0.0, ())]
        while stack:
            first, level, cost, chosen = stack.pop()
            steps += 1
            if len(found) > max_covers or steps > 200 * max_covers or (steps % 1000 == 0 and should_stop()):
                return None
            for index in range(first, len(self.items)):
                _, _, weight = self.items[index]
                total = cost + costs[index]
                left = max(0, level - weight)
                if total + float(table[left]) > limit:
                    continue
                picked = (*chosen, index)
                if left > 0:
                    stack.append((index, left, total, picked))
                elif all(sum(self.items[i][2] for i in picked) - self.items[i][2] < UNITS for i in picked):
                    cover: Cover = {}
                    for i in picked:
                        key = self.items[i][:2]
                        cover[key] = cover.get(key, 0) + 1
                    found.append(cover)
        return found
