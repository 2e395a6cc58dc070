"""Bound B6, ordered layers: no placement of whole nodes on ranges of whole layers carries more, links apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from helix_kit.flow import Placement
from helix_kit.placement.bounds.covers import PRECISION, lowest_refuted, merge_kinds, solve_cover_program
from helix_kit.placement.bounds.relaxations import relaxed_groups, weights_to_try
from helix_kit.placement.bounds.sweep import Answer, LayerSweep, Prices, widest_speeds
from helix_kit.placement.groups import Group
from helix_kit.placement.problem import Problem
from helix_kit.placement.watch import Watch

EXPANSION_S = 0.00015
"""Seconds in which a sweep looks at a state on a usual machine."""
FIRST_EXPANSIONS, FIRST_SHARE, GROWTH = 400, 0.03, 4
"""States looked at for each target of the first pass: so many at least, and this share of what the time allows for all.
Each next pass has so many times as many."""
MAX_TARGETS, PASS_PRECISION = 5, 0.08
"""Targets of a pass, and the share of the distance between value and bound at which it ends."""
EASY = 0.9
"""After a pass that decides nothing, the only target of the next one is so far from value to bound."""
MAX_PRICES, PRICES_EXPANSIONS = 4, 4000
"""Prices that a sweep compares with, at most, and the states from which on more than the best ones pay: each cuts off
other states, takes a linear program, and costs time at each state."""


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
    (`sweep`). Targets are first asked with few states each, then with more; what a pass leaves open, the next one asks
    again. It ends when bound and value meet, when two passes decide nothing, or when the time is over.

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
    questions = _Questions(problem, list(groups), watch, high)
    per_target = max(FIRST_EXPANSIONS, int(FIRST_SHARE * questions.left))
    low = max(low, 1e-3 * high)  # nothing may be known to be reached
    reached, was_decided = low, True
    while high > reached * (1 + 3 * PRECISION) and questions.left > 0 and not _is_over(watch):
        questions.begin_pass(per_target)
        high = lowest_refuted(
            questions.refutes,
            low=reached,
            high=high,
            first=reached * (1 + 2 * PRECISION) if was_decided else reached + EASY * (high - reached),
            gap=max(2 * PRECISION, PASS_PRECISION * (high - reached) / high),
            max_questions=MAX_TARGETS if was_decided else 1,
            should_stop=lambda: questions.left <= 0 or _is_over(watch),
        )
        reached = max(low, questions.covered)
        if not questions.decided and not was_decided:
            break
        was_decided = questions.decided
        per_target *= GROWTH if questions.is_open else 1
    return OrderedBound(high, questions.placement, questions.covered, high <= reached * (1 + 3 * PRECISION))


def _is_over(watch: Watch) -> bool:
    """Whether the time is over. On a counted clock the question itself counts nothing."""
    return watch.left_s <= 0 or watch.stopped()


@dataclass
class _Questions:
    """Asks sweeps whether targets are reached, and keeps the best placement met."""

    problem: Problem
    groups: Sequence[Group]
    watch: Watch
    high: float
    covered: float = 0.0
    """Tokens/s that the nodes of every layer of `placement` have together."""
    placement: Placement = field(default_factory=dict)
    is_open: bool = False
    """Whether the pass left a target open."""
    decided: bool = False
    """Whether the pass decided one."""

    def __post_init__(self) -> None:
        self.weights = weights_to_try(self.problem, self.groups, self.high)
        self.merged = merge_kinds(self.groups)
        self.speeds = [range_speeds(self.problem, group) for group in self.merged]
        self.widest = [widest_speeds(speeds) for speeds in self.speeds]
        self.left = int(min(self.watch.left_s, 1e6) / EXPANSION_S)
        self.per_target = self.usual = FIRST_EXPANSIONS

    def begin_pass(self, per_target: int) -> None:
        """Ask further targets with so many states each, and the first one, just above the known flow, with more.

        Most plans are the best there is, and then that target alone decides.
        """
        self.per_target, self.usual = GROWTH * per_target, per_target
        self.is_open = self.decided = False

    def refutes(self, target: float) -> bool:
        """Whether no placement covers every layer with `target` tokens/s. Undecided counts as no."""
        if target <= self.covered:
            return False
        answer = self._ask(target)
        self.left -= answer.expansions
        self.per_target = self.usual
        if answer.found:
            names = [iter(group.nodes) for group in self.merged]
            placement = {next(names[g]): self._range(g, start, end) for g, start, end in answer.found}
            self.placement, self.covered = placement, coverage(self.problem, placement)
        self.is_open |= not answer.refuted and answer.found is None
        self.decided |= answer.refuted or answer.found is not None
        return answer.refuted

    def _ask(self, target: float) -> Answer:
        found = self._prices(target, self.merged)
        if found is None:
            return Answer(True, None, 1)
        expansions = min(self.per_target, self.left)
        if expansions >= PRICES_EXPANSIONS:
            # Where few nodes of a kind are left, other prices cut off more than those that are best for all of them.
            for group in (g for g, of in enumerate(self.merged) if of.size > 1):
                fewer = [g if at != group else replace(g, nodes=g.nodes[::4]) for at, g in enumerate(self.merged)]
                found += [
                    p for p in self._prices(target, fewer, 0) or () if not any(_alike(p, other) for other in found)
                ]
        sweep = LayerSweep([g.size for g in self.merged], self.widest, target, found[:MAX_PRICES])
        return sweep.run(max(0, expansions), lambda: _is_over(self.watch))

    def _prices(self, target: float, groups: Sequence[Group], share: int = 1) -> list[Prices] | None:
        """The best prices for the nodes by each relaxation; None where one of them refutes the target.

        With a `share` of 0 the prices of fewer nodes are asked for, which refute nothing.
        """
        prices = []
        for weights in self.weights:
            relaxed = relaxed_groups(self.problem, groups, weights)
            usable = [g for g, group in enumerate(relaxed) if any(group.throughput)]
            weight = self.problem.weigh_layers(weights)
            if not weight or not usable:
                continue
            solved = solve_cover_program(
                [relaxed[g] for g in usable], share * weight, target, lambda: _is_over(self.watch), to_optimum=True
            )
            if solved.refuted:
                return None
            of_node = np.zeros(len(relaxed))
            of_node[usable] = solved.duals
            table = solved.knapsack.table(solved.knapsack.costs(solved.duals))
            prices.append(Prices(of_node, self._of_layer(weights), table))
        return prices

    def _of_layer(self, weights: tuple[int, ...]) -> NDArray[np.float64]:
        layers = range(self.problem.num_layers)
        return np.array([self.problem.weigh_layers(weights, layer, layer + 1) for layer in layers], float)

    def _range(self, group: int, start: int, end: int) -> tuple[int, int]:
        """The shortest range around [start, end) that carries what the sweep counts it for."""
        speeds, wanted = self.speeds[group], self.widest[group][start, end]
        around = [
            (e - s, s, e)
            for s in range(start + 1)
            for e in range(end, self.problem.num_layers + 1)
            if speeds[s, e] >= wanted
        ]
        _, first, last = min(around)
        return first, last


def _alike(one: Prices, other: Prices) -> bool:
    same = np.array_equal(one.of_layer, other.of_layer)
    return same and bool(np.allclose(one.of_node, other.of_node, rtol=1e-3))


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
