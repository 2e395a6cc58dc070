"""Stages spread over several regions: the pattern program as if there were one, then nodes chosen for the links.

A chain of regions asks each stage to lie in one of them. That is more than the network asks: two stages may follow
each other whatever the regions of their nodes, as long as no link is asked for more than it carries. So (1) machines
of a kind are one group wherever they are, each carrying no more than sqrt(F c), c the fastest link between regions:
two blocks of such nodes pass F between them; kinds that only one region has need not cross, and stay as they are.
(2) Which node takes which place, and in what order the stages come, is then searched by swaps with the exact maximum
flow as the judge: simulated annealing from a start that is good, with a fixed number of flows, so repeatable.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from helix_kit.flow import Placement
from helix_kit.flow.arrays import ArrayFlows
from helix_kit.placement.groups import Group
from helix_kit.placement.method import Task
from helix_kit.placement.pattern.search import STEPS, PatternSearch
from helix_kit.placement.pattern.stages import Stage
from helix_kit.placement.problem import Problem
from helix_kit.placement.solvers.parts import Slot
from helix_kit.placement.watch import Watch

MOST_NODES = 64
"""More are left to chains of regions: a flow takes longer, and swaps are too many to try."""
FLOWS_A_NODE = 400
"""Flows computed for one target, for each node; as many swaps are tried."""
MOST_TRIES = 3
"""Targets in a row that may end without a better plan."""
HEAT = 0.04
"""Share of the target that a step may lose at the start of the search, at which one in e is taken."""


def array_flows(problem: Problem, names: Sequence[str], partial_inference: bool) -> ArrayFlows:
    """Maximum flows of placements of `names`, as far as each node's memory allows."""
    tables = {n: [problem.throughput(n, k) for k in range(1, problem.max_layers(n) + 1)] for n in names}
    return ArrayFlows(problem.cluster, problem.model, tables, partial_inference=partial_inference)


def find(task: Task, groups: Sequence[Group], bound: float, low: float, fastest_crossing: float) -> Placement | None:
    """The best placement found on the nodes of `groups`, if it carries more than `low` tokens/s.

    `fastest_crossing` is the capacity, in tokens/s, of the fastest link between regions.
    """
    problem, watch = task.problem, task.watch
    names = [n for g in groups for n in g.nodes]
    if len(names) > MOST_NODES or len({g.region for g in groups}) < 2 or task.options.max_stages is not None:
        return None
    flows = array_flows(problem, names, task.options.partial_inference)
    best: Placement | None = None
    failed = 0
    for step in STEPS:
        target = bound * (1 - step)
        if watch.is_over() or target <= low or failed == MOST_TRIES:
            break
        merged = _merged(groups, math.sqrt(min(1.0, fastest_crossing / target)) * target)
        search = PatternSearch(merged, problem.num_layers, watch, task.options.solver, task.options.seed)
        chain = search.attempt(target)
        if chain is None:
            continue
        value, layout = assign(flows, merged, chain[0], target, random.Random(task.options.seed), watch)
        failed = 0 if value > low else failed + 1
        if value > low:
            best, low = layout, value
    return best


def _merged(groups: Sequence[Group], most: float) -> list[Group]:
    """One group a kind; where it lies in several regions, with T cut down to `most`."""
    found: dict[str, list[Group]] = {}
    for group in groups:
        found.setdefault(group.kind, []).append(group)
    return [
        Group(
            kind,
            "",
            tuple(n for g in members for n in g.nodes),
            tuple(t if len(members) == 1 else min(t, most) for t in members[0].throughput),
        )
        for kind, members in found.items()
    ]


def assign(
    flows: ArrayFlows, groups: Sequence[Group], stages: Sequence[Stage], target: float, rng: random.Random, watch: Watch
) -> tuple[float, Placement]:
    """(tokens/s, placement): nodes of `groups` given to the places of `stages`, and these brought into an order."""
    order = list(stages)
    nodes = {g: [flows.index[n] for n in group.nodes] for g, group in enumerate(groups)}

    def value(order: Sequence[Stage], nodes: dict[int, list[int]]) -> float:
        return flows.tokens_per_s(*_arrays(_slots(order, flows.num_layers), nodes))

    now = best = value(order, nodes)
    kept = list(order), nodes
    movable = [g for g in nodes if len(nodes[g]) > 1]
    rounds = FLOWS_A_NODE * len(flows.names)
    for count in range(rounds):
        if best >= target or watch.is_over() or not (movable or len(order) > 1):
            break
        trial, given = _neighbour(order, nodes, movable, rng)
        reached = value(trial, given)
        heat = HEAT * target * (1 - count / rounds)
        if reached >= now or rng.random() < math.exp((reached - now) / heat):
            order, nodes, now = trial, given, reached
            if now > best:
                best, kept = now, (order, nodes)
    chosen, starts, ends = _arrays(_slots(kept[0], flows.num_layers), kept[1])
    return best, {flows.names[n]: (int(s), int(e)) for n, s, e in zip(chosen, starts, ends)}


def _neighbour(
    order: list[Stage], nodes: dict[int, list[int]], movable: Sequence[int], rng: random.Random
) -> tuple[list[Stage], dict[int, list[int]]]:
    """A stage moved, two stages swapped, or two nodes of a kind swapped."""
    if len(order) > 1 and (not movable or rng.random() < 0.25):
        order = list(order)
        i, j = rng.sample(range(len(order)), 2)
        if rng.random() < 0.5:
            order[i], order[j] = order[j], order[i]
        else:
            order.insert(j, order.pop(i))
        return order, nodes
    g = rng.choice(movable)
    members = list(nodes[g])
    i, j = rng.sample(range(len(members)), 2)
    members[i], members[j] = members[j], members[i]
    return order, {**nodes, g: members}


def _slots(order: Sequence[Stage], num_layers: int) -> list[Slot]:
    """Slots of all nodes of the stages in a row. What reaches past the last layer is cut off."""
    found: list[Slot] = []
    start = 0
    for stage in order:
        found += [Slot(g, s, min(e, num_layers)) for g, s, e in stage.slots(start) if s < num_layers]
        start += stage.length
    return found


def _arrays(
    slots: Sequence[Slot], nodes: dict[int, list[int]]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    supply = {g: iter(members) for g, members in nodes.items()}
    table = np.array([(next(supply[g]), start, end) for g, start, end in slots], np.int64)
    return table[:, 0], table[:, 1], table[:, 2]


__all__ = ["array_flows", "assign", "find"]
