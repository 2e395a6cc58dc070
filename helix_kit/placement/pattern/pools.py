"""Pools: nodes of one kind, whatever their region, for stages that lie in several regions.

A stage whose nodes each carry no more than a share sqrt(c / F) of the flow F may stand beside another such stage
whatever the regions of their nodes: no link between them is asked for more than c. So such a stage may take the nodes
that the regions have left over, where one region alone would not fill it. It stands where requests pass from one region
to the next.

A pool is one more group of the pattern program. Its row counts all nodes of the kind, those that stages of single
regions use as well: sum_p a_p,pool y_p <= n_pool, beside the rows of the groups.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from helix_kit.placement.groups import Group
from helix_kit.placement.pattern.stages import PatternStage


class Pools:
    """The groups of several regions, and behind them a pool for each kind.

    Parameters
    ----------
    groups
        The groups of the regions.
    is_used
        Whether there are pools; without, the groups are planned as they are.

    Examples
    --------
    >>> east, west = (Group("L4", region, (f"{region}-0",), (50.0,)) for region in ("east", "west"))
    >>> pools = Pools([east, west])
    >>> [(g.kind, g.region, g.size) for g in pools.planned]
    [('L4', 'east', 1), ('L4', 'west', 1), ('L4', '', 2)]
    >>> mixed = pools.count(PatternStage.of(1, [((2, 1),), ((2, 1),)], pools.planned))
    >>> pools.count(PatternStage.of(1, [((0, 1),)], pools.planned)).uses, mixed.uses
    ((1, 0, 1), (0, 0, 2))
    >>> [[stage.lanes for stage in region] for region in pools.settle([[mixed]])]
    [[(((0, 1),), ((1, 1),))]]
    """

    def __init__(self, groups: Sequence[Group], is_used: bool = True) -> None:
        self.groups = list(groups)
        pools: dict[tuple[str, tuple[float, ...]], list[int]] = {}
        for index, group in enumerate(groups if is_used else ()):
            pools.setdefault((group.kind, group.throughput), []).append(index)
        self._members = list(pools.values())
        pooled = [
            Group(kind, "", tuple(n for g in members for n in groups[g].nodes), table)
            for (kind, table), members in pools.items()
        ]
        self.planned = [*groups, *pooled]
        """The groups, and then the pools."""
        self._pool_of = {g: len(groups) + p for p, members in enumerate(self._members) for g in members}

    def count(self, stage: PatternStage) -> PatternStage:
        """The stage with the nodes that it uses of each group, and of each pool in all."""
        uses = [0] * len(self.planned)
        for lane in stage.lanes:
            for g, _ in lane:
                uses[g] += 1
                if g in self._pool_of:
                    uses[self._pool_of[g]] += 1
        return replace(stage, uses=tuple(uses))

    def prices(self, duals: NDArray[np.float64]) -> NDArray[np.float64]:
        """Price of a node of each planned group: one of a region is counted in the row of its pool as well."""
        prices = np.array(duals[: len(self.planned)])
        for g, pool in self._pool_of.items():
            prices[g] += duals[pool]
        return prices

    def settle(self, chain: Sequence[Sequence[PatternStage]]) -> list[list[PatternStage]]:
        """The chain with each node of a pool replaced by one of a region that has most of them left."""
        left = [g.size for g in self.groups]
        for stage in (s for stages in chain for s in stages):
            for g, _ in (node for lane in stage.lanes for node in lane):
                if g < len(left):
                    left[g] -= 1
        settled: list[list[PatternStage]] = []
        for stages in chain:
            settled.append([])
            for stage in stages:
                lanes = []
                for lane in stage.lanes:
                    nodes = []
                    for g, k in lane:
                        if g < len(left):
                            nodes.append((g, k))
                            continue
                        most = max(self._members[g - len(left)], key=left.__getitem__)
                        left[most] -= 1
                        nodes.append((most, k))
                    lanes.append(tuple(nodes))
                settled[-1].append(PatternStage.of(stage.length, lanes, self.groups))
        return settled
