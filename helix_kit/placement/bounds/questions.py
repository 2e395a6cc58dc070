"""The passes of questions that bounds B6 and B7 share: which targets a search over placements refutes.

Targets are first asked with few states each, then with more; what a pass leaves open, the next one asks again. States
are counted, not seconds, so that the same search ends alike where work is counted.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from helix_kit.flow import Placement
from helix_kit.placement.bounds.covers import PRECISION, lowest_refuted, merge_kinds, solve_cover_program
from helix_kit.placement.bounds.relaxations import relaxed_groups, weights_to_try
from helix_kit.placement.bounds.sweep import Answer, Held, Prices
from helix_kit.placement.groups import Group
from helix_kit.placement.problem import Problem
from helix_kit.placement.watch import Watch

FIRST_SHARE, GROWTH = 0.03, 4
"""States looked at for each target of the first pass, as a share of what the time allows for all. Each next pass has so
many times as many."""
MAX_TARGETS, PASS_PRECISION = 5, 0.08
"""Targets of a pass, and the share of the distance between value and bound at which it ends."""
EASY = 0.9
"""After a pass that decides nothing, the only target of the next one is so far from value to bound."""
MAX_PRICES = 4
"""Prices that a search compares with, at most: each cuts off other states, takes a linear program, and costs time at
each state."""


class Questions(ABC):
    """Asks a search whether targets are reached, and keeps the best placement met.

    Parameters
    ----------
    problem
        Cluster, model and throughputs.
    groups
        The nodes.
    watch
        The clock.
    high
        A known bound in tokens/s.
    """

    state_s: ClassVar[float]
    """Seconds in which the search looks at a state on a usual machine."""
    first_states: ClassVar[int]
    """States looked at for each target of the first pass, at least."""
    many_states: ClassVar[int]
    """From so many states on, more than the best prices pay."""

    def __init__(self, problem: Problem, groups: Sequence[Group], watch: Watch, high: float) -> None:
        self.problem, self.groups, self.watch = problem, groups, watch
        self.covered = 0.0
        """Tokens/s that the search counts for `placement`."""
        self.placement: Placement = {}
        self.weights = weights_to_try(problem, groups, high)
        self.merged = merge_kinds(groups)
        self.left = int(min(watch.left_s, 1e6) / self.state_s)
        self._per_target = self._usual = self.first_states
        self._is_open = self._decided = False

    @abstractmethod
    def search(self, target: float, prices: Sequence[Prices], max_states: int) -> Answer:
        """Search for a placement that carries `target` tokens/s."""

    @abstractmethod
    def keep(self, found: Sequence[Held], target: float) -> tuple[Placement, float]:
        """A placement that was found for a target, and the tokens/s that it counts for."""

    def is_over(self) -> bool:
        """Whether the time is over. On a counted clock the question itself counts nothing."""
        return self.watch.left_s <= 0 or self.watch.stopped()

    def lowest_refuted(self, low: float, high: float) -> tuple[float, bool]:
        """The smallest flow that is refuted between a flow that is reached and a bound, in tokens/s.

        It also says whether nothing is left open between that flow and the placement kept (or `low`).
        """
        per_target = max(self.first_states, int(FIRST_SHARE * self.left))
        low = max(low, 1e-3 * high)  # nothing may be known to be reached
        reached, was_decided = low, True
        while high > reached * (1 + 3 * PRECISION) and self.left > 0 and not self.is_over():
            self._begin_pass(per_target)
            high = lowest_refuted(
                self._refutes,
                low=reached,
                high=high,
                first=reached * (1 + 2 * PRECISION) if was_decided else reached + EASY * (high - reached),
                gap=max(2 * PRECISION, PASS_PRECISION * (high - reached) / high),
                max_questions=MAX_TARGETS if was_decided else 1,
                should_stop=lambda: self.left <= 0 or self.is_over(),
            )
            reached = max(low, self.covered)
            if not self._decided and not was_decided:
                break
            was_decided = self._decided
            per_target *= GROWTH if self._is_open else 1
        return high, high <= reached * (1 + 3 * PRECISION)

    def _begin_pass(self, per_target: int) -> None:
        """Ask further targets with so many states each, and the first one, just above the known flow, with more.

        Most plans are the best there is, and then that target alone decides.
        """
        self._per_target, self._usual = GROWTH * per_target, per_target
        self._is_open = self._decided = False

    def _refutes(self, target: float) -> bool:
        """Whether no placement carries `target` tokens/s. Undecided counts as no."""
        if target <= self.covered:
            return False
        answer = self._ask(target)
        self.left -= answer.expansions
        self._per_target = self._usual
        if answer.found:
            self.placement, self.covered = self.keep(answer.found, target)
        self._is_open |= not answer.refuted and answer.found is None
        self._decided |= answer.refuted or answer.found is not None
        return answer.refuted

    def _ask(self, target: float) -> Answer:
        prices = self._prices(target, self.merged)
        if prices is None:
            return Answer(True, None, 1)
        states = min(self._per_target, self.left)
        if states >= self.many_states:
            # Where few nodes of a kind are left, other prices cut off more than those that are best for all of them.
            for group in (g for g, of in enumerate(self.merged) if of.size > 1):
                fewer = [g if at != group else replace(g, nodes=g.nodes[::4]) for at, g in enumerate(self.merged)]
                prices += [
                    p for p in self._prices(target, fewer, 0) or () if not any(_alike(p, other) for other in prices)
                ]
        return self.search(target, prices[:MAX_PRICES], max(0, states))

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
                [relaxed[g] for g in usable], share * weight, target, self.is_over, to_optimum=True
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


def shortest_around(speeds: NDArray[np.float64], start: int, end: int, wanted: float) -> tuple[int, int]:
    """The shortest range around [start, end) of at least `wanted` tokens/s, of ``speeds[s, e]`` for each range."""
    around = [(e - s, s, e) for s in range(start + 1) for e in range(end, len(speeds)) if speeds[s, e] >= wanted]
    _, first, last = min(around)
    return first, last


def _alike(one: Prices, other: Prices) -> bool:
    same = np.array_equal(one.of_layer, other.of_layer)
    return same and bool(np.allclose(one.of_node, other.of_node, rtol=1e-3))
