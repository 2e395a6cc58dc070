"""Stages: what the pattern program builds a placement from, and the dynamic program that finds good ones.

A *stage* of length l is a set of parallel *lanes* over the same l layers; a lane is a chain of nodes whose sizes
add up to l, and carries the least T among them. Twelve layers may be four L4 of three layers in a row beside
three T4 of four.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from helix_kit.placement.groups import Group
from helix_kit.placement.solvers.parts import Slot

UNITS = 2520
"""F in whole units for the knapsack over lanes, divisible by 2..10 so that equal shares are exact."""
MOST_LANES = 12
"""Lanes that carry less than F / this are not looked at."""
MANY, MORE_LANES, FINER = 2, 4, 8
"""Where even the fastest machine carries less than F / MANY, stages need many lanes: MORE_LANES times as many are
looked at, and rounding their rates down to whole units of F would cost 1 to 2 % of it, so units are finer by FINER."""
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
    def region(self) -> int:
        """Any group it uses: all its nodes are in one region."""
        return self.lanes[0][0][0]

    @cached_property
    def depth(self) -> int:
        """Nodes in the longest lane: the hops it adds to a request's path."""
        return max(len(lane) for lane in self.lanes)

    def widest_share(self, groups: Sequence[Group], flow: float) -> float:
        """The largest share of `flow`, at most `rate`, that one lane, so one end node, must carry.

        Fast lanes may carry less than they could: what matters is the level up to which lanes must be filled.
        """
        rates = sorted(lane_rate(lane, groups) for lane in self.lanes)
        left = flow
        for index, rate in enumerate(rates):
            level = left / (len(rates) - index)
            if level <= rate:
                return level / flow
            left -= rate
        return rates[-1] / flow

    def slots(self, start: int) -> Iterator[Slot]:
        """Layers that its nodes hold, lane by lane, when the stage begins at layer `start`."""
        for lane in self.lanes:
            at = start
            for g, k in lane:
                yield Slot(g, at, at + k)
                at += k

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
    """The cheapest stage of each length that reaches `target`, for given prices of nodes.

    Parameters
    ----------
    members
        Groups that its stages may use; None: all.
    lane_cap
        Tokens/s that a lane carries at most: what links on its way to the next stage let pass.
    link_cap
        Tokens/s that a link between two nodes of a lane lets pass.
    """

    def __init__(
        self,
        groups: Sequence[Group],
        target: float,
        num_layers: int,
        *,
        members: Collection[int] | None = None,
        lane_cap: float = math.inf,
        link_cap: float = math.inf,
    ) -> None:
        self.groups, self.target = groups, target
        inside = range(len(groups)) if members is None else sorted(members)
        longest = max(groups[g].max_layers for g in inside)
        self.lengths = min(num_layers, max(USUAL_LENGTH, longest))
        top = min(target, lane_cap)
        fastest = max((t for g in inside for t in groups[g].throughput), default=0.0)
        many = fastest < target / MANY
        self.units = UNITS * (FINER if many else 1)
        slowest = target / (MOST_LANES * (MORE_LANES if many else 1))
        rates = {min(t, top) for g in inside for t in groups[g].throughput if min(t, top) >= slowest}
        self.link_cap = link_cap
        self.rates = sorted(rates, reverse=True)
        # Rounded down: what the table says reaches the target, does.
        self.weights = [min(self.units, math.floor(r / target * self.units + 1e-9)) for r in self.rates]
        # allowed[j, g, k - 1]: a node of size k of group g keeps up with a lane of rate j.
        sizes = min(longest, self.lengths)
        self.allowed = np.zeros((len(self.rates), len(groups), sizes), bool)
        for g in inside:
            table = np.minimum(np.array(groups[g].throughput[:sizes]), top)
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
        # A lane of several nodes carries no more than a link between them.
        for j, rate in enumerate(self.rates):
            if rate > self.link_cap:
                chain[j, 1:] = np.inf
                chain[j, 1 : sizes + 1] = node[j]
        table = self._cover(chain)
        for length in range(1, self.lengths + 1):
            if np.isfinite(table[length, self.units]):
                yield Stage.of(length, self._trace(table[length], chain, node, length), self.groups)

    def _cover(self, chain: NDArray[np.float64]) -> NDArray[np.float64]:
        """table[l, f]: least cost of lanes of length l whose rates reach f units."""
        units = self.units
        table = np.full((self.lengths + 1, units + 1), np.inf)
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
                shift = min(weight * copies, units)
                added = copies * cost[:, None]
                np.minimum(table[:, shift:], table[:, : units + 1 - shift] + added, out=table[:, shift:])
                np.minimum(table[:, 1:shift], added, out=table[:, 1:shift])
                if shift == units:
                    break
                copies *= 2
        return table

    def _trace(
        self, row: NDArray[np.float64], chain: NDArray[np.float64], node: NDArray[np.float64], length: int
    ) -> list[Lane]:
        lanes, level = [], self.units
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
