"""Bound B6, ordered layers: no placement of whole nodes on ranges of whole layers carries more, links apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from helix_kit.flow import Placement
from helix_kit.placement.bounds.questions import Questions, shortest_around
from helix_kit.placement.bounds.sweep import Answer, Held, LayerSweep, Prices, widest_speeds
from helix_kit.placement.groups import Group
from helix_kit.placement.problem import Problem
from helix_kit.placement.watch import Watch

EXPANSION_S = 0.00015
"""Seconds in which a sweep looks at a state on a usual machine."""


class OrderedBound(NamedTuple):
    """What the sweeps over layers say together.

    Examples
    --------
    >>> OrderedBound(100.0, {"T4-0": (0, 4)}, 99.9999, True).is_finished
    True
    """

    tokens_per_s: float
    """Tokens/s that no placement exceeds, whatever the network."""
    placement: Placement
    """The best placement met by what its layers' nodes have together. Links may carry less. Empty if none was met."""
    covered_tokens_per_s: float
    """What the nodes of every layer of this placement have together."""
    is_finished: bool
    """Whether nothing is left open between bound and placement (or `low`). More time would not help then."""


def ordered_bound(problem: Problem, groups: Sequence[Group], *, low: float, high: float, watch: Watch) -> OrderedBound:
    """B6: the smallest flow that a sweep over the layers refutes.

    The nodes of every layer have the flow together, so a flow is refuted where no placement of whole nodes gives that
    (`sweep`). It ends when bound and value meet, when two passes of questions decide nothing, or when the time is over.

    Parameters
    ----------
    problem
        Cluster, model and throughputs.
    groups
        The nodes.
    low, high
        A flow known to be reached and a known bound, in tokens/s. The search is between them.
    watch
        The clock. States are counted, not seconds, so that the same search ends alike where work is counted.

    Returns
    -------
    OrderedBound
        The bound, at most `high`, and a placement that was found on the way.

    Examples
    --------
    Two nodes with all three layers each carry more than two in a row.

    >>> from helix_kit.cluster import Cluster
    >>> from helix_kit.model import Model
    >>> from helix_kit.placement.groups import groups_of
    >>> cluster = Cluster.model_validate({"name": "two", "nodes": [{"gpu": "L4", "count": 2}]})
    >>> problem = Problem.of(cluster, Model.preset("llama2-70b").model_copy(update={"num_layers": 3}))
    >>> found = ordered_bound(problem, groups_of(problem), low=1.0, high=1e5, watch=Watch(10.0))
    >>> round(found.tokens_per_s / problem.throughput("L4-0", 3), 3), sorted(found.placement.values())
    (2.0, [(0, 3), (0, 3)])
    """
    sweeps = _Sweeps(problem, list(groups), watch, high)
    bound, is_finished = sweeps.lowest_refuted(low, high)
    return OrderedBound(bound, sweeps.placement, sweeps.covered, is_finished)


class _Sweeps(Questions):
    """Asks sweeps over the layers. What counts is the flow that the nodes of every layer have together."""

    state_s, first_states, many_states = EXPANSION_S, 400, 4000

    def __init__(self, problem: Problem, groups: Sequence[Group], watch: Watch, high: float) -> None:
        super().__init__(problem, groups, watch, high)
        self.speeds = [range_speeds(problem, group) for group in self.merged]
        self.widest = [widest_speeds(speeds) for speeds in self.speeds]

    def search(self, target: float, prices: Sequence[Prices], max_states: int) -> Answer:
        sweep = LayerSweep([g.size for g in self.merged], self.widest, target, prices)
        return sweep.run(max_states, self.is_over)

    def keep(self, found: Sequence[Held], target: float) -> tuple[Placement, float]:
        names = [iter(group.nodes) for group in self.merged]
        placement = {
            next(names[g]): shortest_around(self.speeds[g], start, end, self.widest[g][start, end])
            for g, start, end in found
        }
        return placement, coverage(self.problem, placement)


def range_speeds(problem: Problem, group: Group) -> NDArray[np.float64]:
    """T of a node of a group with the layers [s, e) in [s, e], tokens/s; 0 where they do not fit."""
    layers, node = problem.num_layers, group.nodes[0]
    speeds = np.zeros((layers + 1, layers + 1))
    longest = problem.longest_range(node)
    for k in range(1, min(layers, max(longest, group.max_layers)) + 1):
        starts = np.arange(layers - k + 1)
        if problem.is_uniform or k > longest:
            # A group of a plan that overloads nodes has a longer table than their memory allows.
            speeds[starts, starts + k] = group.throughput[k - 1] if k <= group.max_layers else 0.0
        else:
            speeds[starts, starts + k] = [
                problem.range_throughput(node, s, s + k) if problem.fits(node, s, s + k) else 0.0
                for s in range(layers - k + 1)
            ]
    return speeds


def coverage(problem: Problem, placement: Mapping[str, tuple[int, int]]) -> float:
    """The least tokens/s that the nodes of any layer have together."""
    held = np.zeros(problem.num_layers)
    for node, (start, end) in placement.items():
        held[start:end] += problem.range_throughput(node, start, end)
    return float(held.min())


__all__ = ["OrderedBound", "ordered_bound"]
