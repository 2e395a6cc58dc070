"""Stages of the pattern program: the building blocks that it makes a placement from.

A *stage* of length l is a set of parallel *lanes* over the same l layers. A *lane* is a chain of nodes whose sizes add
up to l; it carries the least T(k) among its nodes. A stage carries the sum of its lanes. For example, a stage of twelve
layers may consist of a lane of four L4 with three layers each and a lane of three T4 with four layers each.

A stage names groups of interchangeable nodes, not nodes, and has no position in the model: `lay_out` gives it both.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from helix_kit.placement.groups import Group
from helix_kit.placement.solvers.parts import Slot, assign_nodes

Lane = tuple[tuple[int, int], ...]
"""The nodes of a lane in order, each as (index of its group, layers k that it holds)."""


@dataclass(frozen=True)
class PatternStage:
    """Parallel lanes over the same `length` layers.

    Attributes
    ----------
    length
        Number of layers.
    lanes
        The lanes, sorted.
    rate
        Tokens/s that all lanes carry together.
    uses
        Number of nodes of each group.
    lane_rates
        Tokens/s of each lane, the slowest first.

    Examples
    --------
    >>> groups = [Group("L4", "east", ("a", "b"), (50.0, 30.0)), Group("T4", "east", ("c",), (40.0,))]
    >>> stage = PatternStage.of(2, [((0, 2),), ((0, 1), (1, 1))], groups)
    >>> stage.rate, stage.uses, stage.depth
    (70.0, (2, 1), 2)
    >>> lay_out([stage], groups, num_layers=2)
    {'a': (0, 1), 'c': (1, 2), 'b': (0, 2)}
    """

    length: int
    lanes: tuple[Lane, ...]
    rate: float
    uses: tuple[int, ...]
    lane_rates: tuple[float, ...]

    @classmethod
    def of(cls, length: int, lanes: Sequence[Lane], groups: Sequence[Group]) -> PatternStage:
        """The stage with these lanes; the same lanes in another order give an equal stage."""
        uses = [0] * len(groups)
        for lane in lanes:
            for g, _ in lane:
                uses[g] += 1
        rates = [lane_rate(lane, groups) for lane in lanes]
        return cls(length, tuple(sorted(lanes)), sum(rates), tuple(uses), tuple(sorted(rates)))

    @cached_property
    def any_group(self) -> int:
        """Index of one group that it uses. A stage's nodes lie in one region, so this group tells its region."""
        return self.lanes[0][0][0]

    @cached_property
    def depth(self) -> int:
        """Nodes in the longest lane, which is what the stage adds to the number of nodes that a request passes."""
        return max(len(lane) for lane in self.lanes)

    def widest_share(self, flow: float) -> float:
        """The largest share of `flow` (tokens/s, at most `rate`) that one lane has to carry.

        A link at the stage's end carries at most this share of the flow that its end node passes on. A fast lane need
        not carry all it can: with all lanes filled to a common level h, or to their rate r_j where that is less,
        sum_j min(r_j, h) = flow, and the share is h / flow.
        """
        remaining = flow
        for index, rate in enumerate(self.lane_rates):
            level = remaining / (len(self.lane_rates) - index)
            if level <= rate:
                return level / flow
            remaining -= rate
        return self.lane_rates[-1] / flow

    def slots(self, start: int, end: int) -> Iterator[Slot]:
        """The layer ranges of its nodes, lane by lane, if the stage begins at layer `start`; each is cut off at `end`.

        A range that lies wholly beyond `end` keeps its start, which is then `end` or more.
        """
        for lane in self.lanes:
            at = start
            for g, k in lane:
                yield Slot(g, at, min(at + k, end))
                at += k


def lane_rate(lane: Lane, groups: Sequence[Group]) -> float:
    """Tokens/s of a lane: the least T(k) of its nodes."""
    return min(groups[g].throughput[k - 1] for g, k in lane)


def uniform_stages(groups: Sequence[Group], target: float) -> list[PatternStage]:
    """Stages of equal single nodes side by side: for each group and size k, as many as carry `target` tokens/s."""
    stages = []
    for index, group in enumerate(groups):
        for k, t in enumerate(group.throughput, 1):
            if t > 0 and math.ceil(target / t - 1e-12) <= group.size:
                stages.append(PatternStage.of(k, [((index, k),)] * math.ceil(target / t - 1e-12), groups))
    return stages


def slots_in_a_row(stages: Iterable[PatternStage], num_layers: int) -> list[Slot]:
    """The layer ranges of all nodes of stages laid one after another from layer 0, cut off at the last layer.

    Stages may reach past the last layer. A range that lies wholly beyond it starts at `num_layers` or later.
    """
    slots: list[Slot] = []
    start = 0
    for stage in stages:
        slots += stage.slots(start, num_layers)
        start += stage.length
    return slots


def lay_out(stages: Iterable[PatternStage], groups: Sequence[Group], num_layers: int) -> dict[str, tuple[int, int]]:
    """A placement of stages laid one after another from layer 0, with nodes of each group in the group's order.

    What reaches past the last layer is cut off; a node with nothing left is not placed.
    """
    placement = assign_nodes(slots_in_a_row(stages, num_layers), groups)
    return {name: (start, end) for name, (start, end) in placement.items() if start < num_layers}
