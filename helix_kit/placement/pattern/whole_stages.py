"""The best stages that the nodes of a cluster can fill, by enumeration.

`StagePricing` knows the price of a node, not how many there are: where a region has few nodes of each kind, most of its
stages ask for more of them. The integer program needs stages that exist. For given prices this module lists the
cheapest of each length, by branch and bound over lanes. Of the lanes with the same nodes it needs the fastest alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from itertools import combinations_with_replacement
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from helix_kit.placement.groups import Group
from helix_kit.placement.pattern.pricing import StagePricing
from helix_kit.placement.pattern.stages import Lane, PatternStage

MAX_IN_LANE, MAX_SETS = 6, 400
"""Nodes of a lane at most: as many as make no more than MAX_SETS sets of nodes, and MAX_IN_LANE at most."""
MAX_LANES = 80
"""Lanes of a length that are considered, those of the least cost per token/s."""
MAX_STEPS = 100_000
"""Steps of the search for one length."""
STAGES_PER_LENGTH = 24
"""Stages of each length at most."""


class _Lanes(NamedTuple):
    """The fastest lane of each length for each set of nodes."""

    parents: list[int]
    """The set without its last node; -1 for a single node."""
    last: list[int]
    """Group of the last node, by its place among the groups."""
    uses: NDArray[np.int64]
    """[set, group]: nodes of each group."""
    rate: NDArray[np.float64]
    """[set, length]: tokens/s, 0 where there is no lane."""
    layers: NDArray[np.int64]
    """[set, length]: layers of the last node."""

    def lane(self, number: int, length: int, usable: Sequence[int]) -> Lane:
        """The nodes of a lane."""
        nodes = []
        while number >= 0:
            k = int(self.layers[number, length])
            nodes.append((usable[self.last[number]], k))
            number, length = self.parents[number], length - k
        return tuple(nodes)


@lru_cache(maxsize=128)
def _lanes_of(groups: tuple[Group, ...], max_length: int) -> _Lanes:
    """The lanes of these groups; prices and links do not change them."""
    # numba is slow to import, and most plans need no listing.
    from helix_kit.placement.pattern.stage_kernel import lane_rates

    sets: list[tuple[int, ...]] = []
    for size in range(1, MAX_IN_LANE + 1):
        larger = [
            nodes
            for nodes in combinations_with_replacement(range(len(groups)), size)
            if all(nodes.count(g) <= groups[g].size for g in set(nodes))
        ]
        if size > 1 and len(sets) + len(larger) > MAX_SETS:
            break
        sets += larger
    at = {nodes: number for number, nodes in enumerate(sets)}
    parents, last = [at.get(nodes[:-1], -1) for nodes in sets], [nodes[-1] for nodes in sets]
    throughput = np.zeros((len(groups), max(g.max_layers for g in groups)))
    for row, group in enumerate(groups):
        throughput[row, : group.max_layers] = group.throughput
    uses = np.array([[nodes.count(g) for g in range(len(groups))] for nodes in sets], np.int64)
    rate, layers = lane_rates(throughput, np.array(parents, np.int64), np.array(last, np.int64), max_length)
    return _Lanes(parents, last, uses, rate, layers)


def cheapest_whole_stages(
    pricing: StagePricing,
    prices: NDArray[np.float64],
    max_loss: float,
    should_stop: Callable[[], bool] = lambda: False,
) -> Iterator[PatternStage]:
    """The stages of each length that cost at most 1 + `max_loss` a layer, and take no more nodes than there are.

    Parameters
    ----------
    pricing
        The groups, the flow that a stage carries, and what links allow.
    prices
        Price of a node of each group, such that a stage that pays costs 1 a layer.
    max_loss
        See above.
    should_stop
        Asked before each length; no further ones are listed once it returns True.

    Examples
    --------
    >>> groups = [Group("L4", "east", ("a", "b"), (50.0, 30.0))]
    >>> stages = cheapest_whole_stages(StagePricing(groups, 60.0, 2), np.array([0.5]), 0.1)
    >>> [(s.length, s.uses) for s in stages]
    [(1, (2,)), (2, (2,))]
    """
    from helix_kit.placement.pattern.stage_kernel import list_covers

    groups, usable = pricing.groups, pricing.usable
    lanes = _lanes_of(tuple(groups[g] for g in usable), pricing.max_length)
    supply = np.array([groups[g].size for g in usable], np.int64)
    costs_of_lanes = lanes.uses @ prices[usable]
    cap = min(pricing.target, pricing.lane_cap)
    caps = np.where(np.array(lanes.parents) < 0, cap, min(cap, pricing.link_cap))
    for length in range(1, pricing.max_length + 1):
        if should_stop():
            return
        rates = np.minimum(lanes.rate[:, length], caps)
        some = np.flatnonzero(rates > 0)
        best = some[np.argsort(costs_of_lanes[some] / rates[some], kind="stable")][:MAX_LANES]
        cost, rate, uses = costs_of_lanes[best], rates[best], lanes.uses[best]
        most = length * (1 + max_loss)
        costs, numbers, found = list_covers(
            cost, rate, uses, supply, pricing.target, most, STAGES_PER_LENGTH, MAX_STEPS
        )
        for at in np.argsort(costs, kind="stable"):
            chosen = [lanes.lane(int(best[j]), length, usable) for j in found[at, : numbers[at]]]
            yield PatternStage.of(length, chosen, groups)


def is_there(stage: PatternStage, supply: Sequence[int]) -> bool:
    """Whether there are as many nodes of each group as the stage uses."""
    return all(used <= number for used, number in zip(stage.uses, supply))
