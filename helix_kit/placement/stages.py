"""Stages: what the pattern program builds a placement from, and the dynamic program that finds good ones.

A *stage* of length l is a set of parallel *lanes* over the same l layers; a lane is a chain of nodes whose sizes
add up to l, and carries the least T among them. Twelve layers may be four L4 of three layers in a row beside
three T4 of four.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from helix_kit.placement.groups import Group

UNITS = 2520
"""F in whole units for the knapsack over lanes, divisible by 2..10 so that equal shares are exact."""
MOST_LANES = 12
"""Lanes that carry less than F / this are not looked at."""
USUAL_LENGTH = 24
"""Longest stage looked for, where no single node holds more."""
Lane = tuple[tuple[int, int], ...]
"""Nodes of a lane in order, as (group, size k)."""


@dataclass(frozen=True)
class Stage:
    """`length` layers carried by parallel lanes; `uses` counts nodes of each group."""

    length: int
    lanes: tuple[Lane, ...]
    rate: float
    """Tokens/s: the lanes' rates added up."""
    uses: tuple[int, ...]

    @cached_property
    def depth(self) -> int:
        """Nodes in the longest lane: the hops it adds to a request's path."""
        return max(len(lane) for lane in self.lanes)

    @classmethod
    def of(cls, length: int, lanes: Sequence[Lane], groups: Sequence[Group]) -> Stage:
        """The stage with these lanes, longest-lane order made canonical."""
        uses = [0] * len(groups)
        for lane in lanes:
            for g, _ in lane:
                uses[g] += 1
        rate = sum(lane_rate(lane, groups) for lane in lanes)
        return cls(length, tuple(sorted(lanes)), rate, tuple(uses))


def lane_rate(lane: Lane, groups: Sequence[Group]) -> float:
    """Tokens/s of a chain: the least T in it."""
    return min(groups[g].throughput[k - 1] for g, k in lane)


def uniform_stages(groups: Sequence[Group], target: float) -> list[Stage]:
    """Stages of equal nodes side by side: for each group and size, as many as reach `target`."""
    found = []
    for index, group in enumerate(groups):
        for k, t in enumerate(group.throughput, 1):
            if t > 0 and math.ceil(target / t - 1e-12) <= group.size:
                found.append(Stage.of(k, [((index, k),)] * math.ceil(target / t - 1e-12), groups))
    return found


class StagePricing:
    """The cheapest stage of each length that reaches `target`, for given prices of nodes."""

    def __init__(self, groups: Sequence[Group], target: float, num_layers: int, lane_depth: int | None = None) -> None:
        self.groups, self.target = groups, target
        longest = max(g.max_layers for g in groups)
        self.lengths = min(num_layers, max(USUAL_LENGTH, longest))
        self.lane_depth = lane_depth
        rates = {min(t, target) for g in groups for t in g.throughput if t >= target / MOST_LANES}
        self.rates = sorted(rates, reverse=True)
        # Rounded down: what the table says reaches the target, does.
        self.weights = [min(UNITS, math.floor(r / target * UNITS + 1e-9)) for r in self.rates]
        # allowed[j, g, k - 1]: a node of size k of group g keeps up with a lane of rate j.
        sizes = min(longest, self.lengths)
        self.allowed = np.zeros((len(self.rates), len(groups), sizes), bool)
        for g, group in enumerate(groups):
            table = np.minimum(np.array(group.throughput[:sizes]), target)
            self.allowed[:, g, : len(table)] = table[None, :] >= np.array(self.rates)[:, None] - 1e-12

    def cheapest(self, duals: NDArray[np.float64]) -> Iterator[Stage]:
        """The cheapest stage of every length that has one."""
        prices = np.where(self.allowed, duals[None, :, None], np.inf)
        self._best_group = prices.argmin(axis=1)
        node = prices.min(axis=1)  # [rate, size - 1]: cheapest node of that size
        count, sizes = node.shape
        chain = np.full((count, self.lengths + 1), np.inf)
        chain[:, 0] = 0.0
        for length in range(1, self.lengths + 1):
            reach = min(length, sizes)
            options = node[:, :reach] + chain[:, length - reach : length][:, ::-1]
            chain[:, length] = options.min(axis=1)
        table = self._cover(chain)
        for length in range(1, self.lengths + 1):
            if np.isfinite(table[length, UNITS]):
                yield Stage.of(length, self._trace(table[length], chain, node, length), self.groups)

    def _cover(self, chain: NDArray[np.float64]) -> NDArray[np.float64]:
        """table[l, f]: least cost of lanes of length l whose rates reach f units."""
        table = np.full((self.lengths + 1, UNITS + 1), np.inf)
        table[:, 0] = 0.0
        previous: NDArray[np.float64] | None = None
        for j, weight in enumerate(self.weights):
            # A lane no cheaper than a faster one, at any length, is of no use.
            cost = chain[j]
            if previous is not None and not (cost < previous - 1e-12).any():
                continue
            previous = cost if previous is None else np.minimum(previous, cost)
            copies = 1
            while True:
                shift = min(weight * copies, UNITS)
                added = copies * cost[:, None]
                np.minimum(table[:, shift:], table[:, : UNITS + 1 - shift] + added, out=table[:, shift:])
                np.minimum(table[:, 1:shift], added, out=table[:, 1:shift])
                if shift == UNITS:
                    break
                copies *= 2
        return table

    def _trace(
        self, row: NDArray[np.float64], chain: NDArray[np.float64], node: NDArray[np.float64], length: int
    ) -> list[Lane]:
        lanes, level = [], UNITS
        weights = np.array(self.weights)
        while level > 0:
            j = int(np.argmin(row[np.maximum(level - weights, 0)] + chain[:, length]))
            level = max(0, level - self.weights[j])
            lane, left = [], length
            while left > 0:
                reach = min(left, node.shape[1])
                k = int(np.argmin(node[j, :reach] + chain[j, left - reach : left][::-1])) + 1
                lane.append((int(self._best_group[j, k - 1]), k))
                left -= k
            lanes.append(tuple(lane))
        return lanes
