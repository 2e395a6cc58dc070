"""Bound B7, links: no placement of whole nodes on ranges of whole layers carries more, with all links counted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from helix_kit.flow import MILLI, Placement
from helix_kit.flow.arrays import ArrayFlows, Capacities
from helix_kit.placement.bounds.knapsack import UNITS
from helix_kit.placement.bounds.questions import Questions, shortest_around
from helix_kit.placement.bounds.sweep import Answer, Held, Prices, widest_speeds
from helix_kit.placement.groups import Group
from helix_kit.placement.problem import Problem
from helix_kit.placement.watch import Watch

STATE_S = 0.000004
"""Seconds in which the search looks at a state on a usual machine."""
MAX_NODES = 16
"""With more nodes there are too many placements for a proof."""
CHUNK = 4000
"""States between two looks at the clock."""


class LinkedBound(NamedTuple):
    """What the searches over placements say together.

    Examples
    --------
    >>> LinkedBound(100.0, {"T4-0": (0, 4)}, True).is_finished
    True
    """

    tokens_per_s: float
    """Tokens/s that no placement exceeds."""
    placement: Placement
    """The best placement met. Empty if none was met."""
    is_finished: bool
    """Whether nothing is left open between bound and placement (or `low`). More time would not help then."""


def linked_bound(
    problem: Problem, groups: Sequence[Group], flows: ArrayFlows, *, low: float, high: float, watch: Watch
) -> LinkedBound:
    """B7: the smallest flow that a search over placements refutes, with the flow over all links.

    Parameters
    ----------
    problem
        Cluster, model and throughputs.
    groups
        The nodes.
    flows
        Flows of the same nodes.
    low, high
        A flow known to be reached and a known bound, in tokens/s. The search is between them.
    watch
        The clock. States are counted, not seconds, so that the same search ends alike where work is counted.

    Returns
    -------
    LinkedBound
        The bound, at most `high`, and a placement that was found on the way.

    Examples
    --------
    Over a link of 61 tokens/s a chain of two nodes carries so much, though each node is faster.

    >>> from helix_kit.cluster import Cluster
    >>> from helix_kit.model import Model
    >>> from helix_kit.placement.groups import groups_of
    >>> network = {"within_region": {"bandwidth_gbps": 0.008}}
    >>> nodes = [{"gpu": "L4", "count": 2}]
    >>> cluster = Cluster.model_validate({"name": "two", "throughput": "published", "nodes": nodes, "network": network})
    >>> problem = Problem.of(cluster, Model.preset("llama2-70b").model_copy(update={"num_layers": 14}))
    >>> tables = {n: problem.throughput_by_kind["L4"] for n in problem.kind_of}
    >>> flows = ArrayFlows(cluster, problem.model, tables, partial_inference=True)
    >>> found = linked_bound(problem, groups_of(problem), flows, low=1.0, high=1e3, watch=Watch(10.0))
    >>> round(found.tokens_per_s), sorted(found.placement.values()), found.is_finished
    (61, [(0, 7), (7, 14)], True)
    """
    searches = _Searches(problem, groups, flows, watch, high)
    bound, is_finished = searches.lowest_refuted(low, high)
    return LinkedBound(bound, searches.placement, is_finished)


class _Searches(Questions):
    """Asks searches over placements. What counts is the maximum flow."""

    state_s, first_states, many_states = STATE_S, 20_000, 100_000

    def __init__(self, problem: Problem, groups: Sequence[Group], flows: ArrayFlows, watch: Watch, high: float) -> None:
        from helix_kit.placement.bounds.linked_sweep import Machines

        super().__init__(problem, groups, watch, high)
        self.flows = flows
        capacities = flows.capacities(np.arange(len(flows.names)))
        self.classes = interchangeable(capacities)
        self.speeds = [range_capacities(capacities, members[0]).astype(float) for members in self.classes]
        self.widest = [widest_speeds(speeds).astype(np.int64) for speeds in self.speeds]
        order = [node for members in self.classes for node in members]
        sizes = np.array([len(members) for members in self.classes], np.int64)
        # Coarse units are rounded down: one more is what a capacity has at most.
        extra = int(flows.units_per_token < MILLI)
        carried = np.array([_through_card(widest, capacities) for widest in self.widest]) + extra
        carried[np.array(self.widest) == 0] = 0
        self.machines = Machines(
            sizes,
            np.cumsum(sizes) - sizes,
            carried,
            np.maximum.accumulate(carried.max(axis=2)[:, ::-1], axis=1)[:, ::-1].copy(),
            np.ascontiguousarray(capacities.links[np.ix_(order, order)]) + extra,
            capacities.from_coordinator[order] + extra,
            capacities.to_coordinator[order] + extra,
        )
        group_of = {name: g for g, group in enumerate(self.merged) for name in group.nodes}
        self.group_of_class = [group_of[flows.names[members[0]]] for members in self.classes]

    def search(self, target: float, prices: Sequence[Prices], max_states: int) -> Answer:
        from helix_kit.placement.bounds.linked_sweep import FOUND, REFUTED, PriceTables, begin, walk_on

        layers = [np.concatenate([[0.0], np.cumsum(p.of_layer)]) for p in prices]
        tables = PriceTables(
            np.array([p.of_node[self.group_of_class] for p in prices]).reshape(len(prices), len(self.classes)),
            np.array(layers).reshape(len(prices), self.problem.num_layers + 1),
            np.array([p.cover for p in prices]).reshape(len(prices), UNITS + 1),
        )
        units = int(np.ceil(target * self.flows.units_per_token - 1e-6))
        walk, states = begin(self.machines), 0
        while states < max_states and not self.is_over():
            chunk = min(CHUNK, max_states - states)
            answer, looked_at = walk_on(self.machines, tables, walk, units, self.flows.partial_inference, chunk)
            states += looked_at
            self.watch.spend(looked_at * STATE_S)
            if answer == REFUTED:
                return Answer(True, None, states)
            if answer == FOUND:
                placed = range(walk.depth[0])
                found = (Held(int(walk.classes[i]), int(walk.starts[i]), int(walk.ends[i])) for i in placed)
                return Answer(False, tuple(found), states)
        return Answer(False, None, states)

    def keep(self, found: Sequence[Held], target: float) -> tuple[Placement, float]:
        nodes = [iter(members) for members in self.classes]
        placement = {
            self.flows.names[next(nodes[c])]: shortest_around(self.speeds[c], start, end, self.widest[c][start, end])
            for c, start, end in found
        }
        # Where a range is widened, or others feed a node with the whole model, it may carry less than the search says.
        return placement, max(target, self.flows.of_placement(placement))


def interchangeable(capacities: Capacities) -> list[list[int]]:
    """Numbers of the nodes by classes: any two of a class may change places in every placement.

    Parameters
    ----------
    capacities
        The nodes.

    Returns
    -------
    list of list of int
        One list for each class.

    Examples
    --------
    The first two nodes are as fast, and have the same links to the third.

    >>> fast, links = np.array([[0, 9], [0, 9], [0, 5]]), np.array([[0, 1, 2], [1, 0, 2], [3, 3, 0]])
    >>> interchangeable(Capacities(fast, links, np.ones(3), np.ones(3), 9, 9, np.array([[0, 1], [0, 0]])))
    [[0, 1], [2]]
    """
    classes: list[list[int]] = []
    for node in range(len(capacities.links)):
        for members in classes:
            if _may_change_places(capacities, members[0], node):
                members.append(node)
                break
        else:
            classes.append([node])
    return classes


def _may_change_places(capacities: Capacities, one: int, other: int) -> bool:
    links = capacities.links
    rest = [n for n in range(len(links)) if n not in (one, other)]
    return (
        np.array_equal(capacities.throughput[one], capacities.throughput[other])
        and capacities.from_coordinator[one] == capacities.from_coordinator[other]
        and capacities.to_coordinator[one] == capacities.to_coordinator[other]
        and links[one, other] == links[other, one]
        and np.array_equal(links[one, rest], links[other, rest])
        and np.array_equal(links[rest, one], links[rest, other])
    )


def range_capacities(capacities: Capacities, node: int) -> NDArray[np.int64]:
    """Units that a node carries with the layers [s, e) in [s, e], its card apart; 0 where they do not fit.

    Parameters
    ----------
    capacities
        Of several nodes.
    node
        Number of one of them.

    Returns
    -------
    ndarray
        Shape (L + 1, L + 1).

    Examples
    --------
    >>> columns = np.array([[0, 1, 2], [0, 0, 1], [0, 0, 0]])
    >>> fast, one = np.array([[0, 9]]), np.ones(1, int)
    >>> range_capacities(Capacities(fast, one[None], one, one, 9, 9, columns), 0).tolist()
    [[0, 9, 0], [0, 0, 9], [0, 0, 0]]
    """
    table = capacities.throughput[node]
    columns = np.where(capacities.columns < len(table), capacities.columns, 0)
    return np.where(columns > 0, table[columns], 0)


def _through_card(speeds: NDArray[np.int64], capacities: Capacities) -> NDArray[np.int64]:
    """The speeds cut down to what a card carries: activations, or token ids where a node holds the whole model.

    The card of such a node carries activations too if others feed it, which is left out here.
    """
    cards = np.full(speeds.shape, capacities.card)
    cards[0, -1] = capacities.card_of_token_ids
    return np.minimum(speeds, cards)


__all__ = ["LinkedBound", "interchangeable", "linked_bound", "range_capacities"]
