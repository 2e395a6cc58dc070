"""The best placement on one set of regions: a chain of the regions, or stages spread over them."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from itertools import islice, permutations

from helix_kit.flow import Placement
from helix_kit.placement import bounds
from helix_kit.placement.groups import Group
from helix_kit.placement.method import Task
from helix_kit.placement.pattern.mixed_regions import place_across_regions
from helix_kit.placement.pattern.search import PRECISION, Candidate, PatternSearch, StageChain
from helix_kit.placement.pattern.stages import lay_out
from helix_kit.placement.pattern.targets import search_flow
from helix_kit.placement.problem import Problem

MAX_ORDERS = 24
"""Orders of the regions of a chain that are compared by their maximum flow."""
SAMPLED_LINKS = 400
"""Links whose capacities are looked at between two regions, or within one; of more links every nth."""


def place_on_set(
    task: Task,
    regions: Sequence[str],
    bound: float,
    low: float,
    precision: float = PRECISION,
    *,
    is_thorough: bool = False,
) -> Placement | None:
    """The best placement found on a set of regions, or None when there is none.

    Parameters
    ----------
    task
        Its watch limits the search on this set.
    regions
        Names of the regions.
    bound
        Tokens/s that no placement on the whole cluster exceeds.
    low
        Tokens/s to be beaten: targets below it are not tried. The result may carry less.
    precision
        Relative precision of the search, see `search_flow`.
    is_thorough
        See `PatternSearch`.
    """
    num_layers = task.problem.num_layers
    groups = [g for g in task.groups if g.region in regions]
    if sum(g.size * g.max_layers for g in groups) < num_layers:
        return None
    bound = min(bound, bounds.cover_bound_of(tuple(groups), num_layers, task.watch.is_over))
    link_tokens_per_s = inner_link_capacity(task.problem, groups)
    best: Candidate | None = None
    for crossing_tokens_per_s in crossing_capacities(task.problem, groups):
        search = PatternSearch(
            groups,
            num_layers,
            task.watch,
            task.options.solver,
            task.options.seed,
            task.options.max_stages,
            link_tokens_per_s=link_tokens_per_s,
            crossing_tokens_per_s=crossing_tokens_per_s,
            is_thorough=is_thorough,
        )
        found = search_flow(
            search, bound, lambda chain: _best_order(task, groups, chain), max(low, _value(best)), precision
        )
        if found is not None and (best is None or found.tokens_per_s > best.tokens_per_s):
            best = found
        if task.watch.is_over() or max(low, _value(best)) >= bound * (1 - PRECISION):
            break
    placement = None if best is None else best.placement
    reached = max(low, _value(best))
    if len(regions) > 1 and not is_thorough and not task.watch.is_over() and reached < bound * (1 - PRECISION):
        spread = place_across_regions(task, groups, bound, reached, bounds.fastest_crossing(task.problem, groups))
        if spread is not None and task.max_flow(spread).tokens_per_s > reached:
            placement = spread
    return placement


def _value(candidate: Candidate | None) -> float:
    return 0.0 if candidate is None else candidate.tokens_per_s


def _best_order(task: Task, groups: Sequence[Group], chain: StageChain) -> Candidate:
    """The placement of the chain in the best order of its regions; the first order that loses nothing is taken."""
    best = Candidate(0.0, {})
    for order in _orders(chain):
        stages = [stage for region in order for stage in region]
        placement = lay_out(stages, groups, task.problem.num_layers)
        reached = task.max_flow(placement).tokens_per_s
        if reached > best.tokens_per_s:
            best = Candidate(reached, placement)
        if reached >= min(stage.rate for stage in stages) * (1 - PRECISION):
            break
    return best


def _orders(chain: StageChain) -> Iterator[StageChain]:
    """The chain with the regions between the first and the last in every order, MAX_ORDERS at most."""
    if len(chain) <= 3:
        yield chain
        return
    for middle in islice(permutations(chain[1:-1]), MAX_ORDERS):
        yield [chain[0], *middle, chain[-1]]


def crossing_capacities(problem: Problem, groups: Sequence[Group]) -> list[float]:
    """Capacities to plan crossings with, in tokens/s: the fastest, median and slowest link between regions.

    A single region has no crossings: their capacity is infinite.
    """
    nodes = _nodes_by_region(groups)
    if len(nodes) < 2:
        return [float("inf")]
    capacities: list[float] = []
    for a, b in permutations(nodes, 2):
        capacities += _sampled_capacities(problem, [(x, y) for x in nodes[a] for y in nodes[b]])
    chosen = {round(c, 3) for c in (max(capacities), statistics.median(capacities), min(capacities))}
    return sorted(chosen, reverse=True)


def inner_link_capacity(problem: Problem, groups: Sequence[Group]) -> float:
    """Capacity of the slowest link within a region, in tokens/s, among those looked at."""
    slowest = float("inf")
    for nodes in _nodes_by_region(groups).values():
        pairs = [(x, y) for x in nodes for y in nodes if x != y]
        slowest = min([slowest, *_sampled_capacities(problem, pairs)])
    return slowest


def _nodes_by_region(groups: Sequence[Group]) -> dict[str, list[str]]:
    nodes: dict[str, list[str]] = {}
    for group in groups:
        nodes.setdefault(group.region, []).extend(group.nodes)
    return nodes


def _sampled_capacities(problem: Problem, pairs: Sequence[tuple[str, str]]) -> list[float]:
    """Tokens/s of every nth of these links, such that about SAMPLED_LINKS are looked at."""
    return [problem.link_capacity(x, y) for x, y in pairs[:: max(1, len(pairs) // SAMPLED_LINKS)]]
