"""Stages spread over several regions: stages are chosen as in one region, then nodes and order are fitted to the links.

A chain of regions asks each stage to lie in one region. The network does not ask for that: two stages may follow each
other whatever the regions of their nodes, as long as no link is asked for more than it carries. So there are two steps.

1. Nodes of a kind are made one group across regions, and each carries at most sqrt(F c), with c the capacity of the
   fastest link between regions. Two stages of such nodes in a row put at most sqrt(c / F)^2 F = c on a link. Kinds that
   only one region has need not cross, and keep their T(k).
2. Which node fills which slot, and the order of the stages, are searched by simulated annealing. It swaps nodes, and
   moves and swaps stages; each step is judged by its exact maximum flow. The number of steps is fixed, so the result is
   the same at every run that is not cut short.
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
from helix_kit.placement.pattern.search import STEPS, Candidate, PatternSearch
from helix_kit.placement.pattern.stages import PatternStage, slots_in_a_row
from helix_kit.placement.problem import Problem
from helix_kit.placement.watch import Watch

MAX_NODES = 64
"""With more nodes this search is left out: each flow takes longer, and there are too many swaps to try."""
FLOWS_PER_NODE = 400
"""Steps of the annealing for one target, for each node."""
MAX_FAILURES = 3
"""Targets in a row without a better plan after which the search ends."""
START_TEMPERATURE = 0.04
"""Share of the target: a step that loses so much is accepted with probability 1 / e at the start."""
STAGE_MOVE_SHARE = 0.25
"""Share of the steps that move or swap stages; the others swap nodes."""

_NodesByGroup = dict[int, list[int]]
"""Index of a group -> numbers of its nodes, in the order in which they fill slots."""


def array_flows(problem: Problem, names: Sequence[str], partial_inference: bool) -> ArrayFlows:
    """Maximum flows of placements of `names`, as far as each node's memory allows."""
    columns = None
    if problem.is_uniform:
        tables = {n: [problem.throughput(n, k) for k in range(1, problem.max_layers(n) + 1)] for n in names}
    else:
        columns, spans = range_columns(problem)
        by_kind: dict[str, list[float]] = {}
        for n in names:
            if problem.kind_of[n] not in by_kind:
                by_kind[problem.kind_of[n]] = [
                    problem.range_throughput(n, *span) if problem.fits(n, *span) else 0.0 for span in spans
                ]
        tables = {n: by_kind[problem.kind_of[n]] for n in names}
    return ArrayFlows(
        problem.cluster,
        problem.model,
        tables,
        partial_inference=partial_inference,
        passes_per_token=problem.passes_per_token,
        columns=columns,
    )


def range_columns(problem: Problem) -> tuple[NDArray[np.int64], list[tuple[int, int]]]:
    """A number from 1 for each mix of kinds that a range may have, shape (L + 1, L + 1), and a range of each mix."""
    layers, longest = problem.num_layers, max(problem.longest_range(n.name) for n in problem.cluster.nodes)
    columns = np.zeros((layers + 1, layers + 1), np.int64)
    numbers: dict[tuple[int, ...], int] = {}
    spans: list[tuple[int, int]] = []
    for k in range(1, longest + 1):
        for start in range(layers - k + 1):
            mix = problem.model.count_kinds(start, start + k)
            if mix not in numbers:
                spans.append((start, start + k))
                numbers[mix] = len(spans)
            columns[start, start + k] = numbers[mix]
    return columns, spans


def place_across_regions(
    task: Task, groups: Sequence[Group], bound: float, low: float, fastest_crossing: float
) -> Placement | None:
    """The best placement found on the nodes of some groups that carries more than `low`; None if there is none.

    Parameters
    ----------
    task
        Its watch limits the search.
    groups
        The groups whose nodes are placed. They lie in two regions or more, or nothing is tried.
    bound
        Tokens/s that no placement on these nodes exceeds.
    low
        Tokens/s to be beaten.
    fastest_crossing
        Tokens/s of the fastest link between regions.
    """
    problem, watch, options = task.problem, task.watch, task.options
    names = [n for g in groups for n in g.nodes]
    if len(names) > MAX_NODES or len({g.region for g in groups}) < 2 or options.max_stages is not None:
        return None
    flows = array_flows(problem, names, options.partial_inference)
    best: Placement | None = None
    failures = 0
    for step in STEPS:
        target = bound * (1 - step)
        if watch.is_over() or target <= low or failures == MAX_FAILURES:
            break
        merged = _merged(groups, math.sqrt(min(1.0, fastest_crossing / target)) * target)
        search = PatternSearch(merged, problem.num_layers, watch, options.solver, options.seed)
        chain = search.attempt(target)
        if chain is None:
            continue
        found = fit_to_links(flows, merged, chain[0], target, random.Random(options.seed), watch)
        failures = 0 if found.tokens_per_s > low else failures + 1
        if found.tokens_per_s > low:
            best, low = found.placement, found.tokens_per_s
    return best


def _merged(groups: Sequence[Group], cap_tokens_per_s: float) -> list[Group]:
    """One group for each kind; T(k) of a kind that lies in several regions is cut down to the cap."""
    by_kind: dict[str, list[Group]] = {}
    for group in groups:
        by_kind.setdefault(group.kind, []).append(group)
    return [
        Group(
            kind,
            "",
            tuple(n for g in same for n in g.nodes),
            tuple(t if len(same) == 1 else min(t, cap_tokens_per_s) for t in same[0].throughput),
        )
        for kind, same in by_kind.items()
    ]


def fit_to_links(
    flows: ArrayFlows,
    groups: Sequence[Group],
    stages: Sequence[PatternStage],
    target: float,
    rng: random.Random,
    watch: Watch,
) -> Candidate:
    """Nodes for the slots of `stages` and an order of the stages, by simulated annealing on the maximum flow.

    The search ends once the flow reaches `target` (tokens/s) or the watch is over.
    """
    order = list(stages)
    nodes = {g: [flows.index[n] for n in group.nodes] for g, group in enumerate(groups)}

    def flow(order: Sequence[PatternStage], nodes: _NodesByGroup) -> float:
        return flows.tokens_per_s(*_arrays(order, flows.num_layers, nodes))

    now = best = flow(order, nodes)
    kept = list(order), nodes
    swappable = [g for g in nodes if len(nodes[g]) > 1]
    rounds = FLOWS_PER_NODE * len(flows.names)
    for count in range(rounds):
        if best >= target or watch.is_over() or not (swappable or len(order) > 1):
            break
        new_order, new_nodes = _neighbour(order, nodes, swappable, rng)
        reached = flow(new_order, new_nodes)
        temperature = START_TEMPERATURE * target * (1 - count / rounds)
        if reached >= now or rng.random() < math.exp((reached - now) / temperature):
            order, nodes, now = new_order, new_nodes, reached
            if now > best:
                best, kept = now, (order, nodes)
    chosen, starts, ends = _arrays(kept[0], flows.num_layers, kept[1])
    return Candidate(best, {flows.names[n]: (int(s), int(e)) for n, s, e in zip(chosen, starts, ends)})


def _neighbour(
    order: list[PatternStage], nodes: _NodesByGroup, swappable: Sequence[int], rng: random.Random
) -> tuple[list[PatternStage], _NodesByGroup]:
    """The same with a stage moved, two stages swapped, or two nodes of a group swapped."""
    if len(order) > 1 and (not swappable or rng.random() < STAGE_MOVE_SHARE):
        order = list(order)
        i, j = rng.sample(range(len(order)), 2)
        if rng.random() < 0.5:
            order[i], order[j] = order[j], order[i]
        else:
            order.insert(j, order.pop(i))
        return order, nodes
    g = rng.choice(swappable)
    swapped = list(nodes[g])
    i, j = rng.sample(range(len(swapped)), 2)
    swapped[i], swapped[j] = swapped[j], swapped[i]
    return order, {**nodes, g: swapped}


def _arrays(
    order: Sequence[PatternStage], num_layers: int, nodes: _NodesByGroup
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """The placed nodes with the starts and ends of their ranges, for `ArrayFlows`."""
    supply = {g: iter(numbers) for g, numbers in nodes.items()}
    table = np.array(
        [(next(supply[g]), s, e) for g, s, e in slots_in_a_row(order, num_layers) if s < num_layers], np.int64
    )
    return table[:, 0], table[:, 1], table[:, 2]
