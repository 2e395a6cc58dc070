"""Several regions: chains that pass one region after another, and sets of regions that serve side by side."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations, permutations

from helix_kit.placement import bounds
from helix_kit.placement.groups import Group, groups_of
from helix_kit.placement.pattern import PRECISION, Chain, Layout, PatternSearch, lay_out, search_flow
from helix_kit.placement.planner import Task
from helix_kit.placement.watch import Watch

MOST_ORDERS = 24
MOST_SUBSETS = 64
LATER_SETS = 4
"""A set of regions may take a quarter of the time that is left, if others follow."""
LINKS_LOOKED_AT = 400


def find(task: Task, bound: float) -> Layout | None:
    """The best placement over chains of regions and partitions into chains, within the task's time.

    `bound` is a proven bound on the flow: the search ends when it is reached.
    """
    problem, watch = task.problem, task.watch
    names = sorted({g.region for g in task.groups}, key=[g.region for g in task.groups].index)
    best: dict[tuple[str, ...], tuple[float, Layout]] = {}
    value, placement = 0.0, None

    def consider(layout: Layout) -> float:
        nonlocal value, placement
        reached = problem.max_flow(layout, partial_inference=task.partial_inference).tokens_per_s
        if reached > value:
            value, placement = reached, layout
            watch.report(value=reached, message=f"{len({problem.cluster.region_of(n) for n in layout})} regions")
        return reached

    # Each region alone is quick and, where links are thin, nearly all there is; then ever larger sets.
    sizes = [1, len(names), *range(2, len(names))] if len(names) > 1 else [1]
    subsets = [s for size in sizes for s in combinations(names, size)][:MOST_SUBSETS]
    most = {s: _upper_bound(task, s) for s in subsets}
    for index, subset in enumerate(subsets):
        if watch.over() or value >= bound * (1 - PRECISION):
            break
        rest = [s for s in subsets if not set(s) & set(subset)]
        if most[subset] + _most_beside(rest, most) <= value * (1 + PRECISION):
            continue  # whatever is found here, with the best beside it, is no better
        # One set must not take the time of all; what its parts reach side by side is to be beaten.
        few = len(names) <= 3 and len(subset) == len(names)
        share = watch.left * (0.7 if few else 1 / min(LATER_SETS, len(subsets) - index))
        inner = replace(task, watch=Watch(share, stop=watch.stopped))
        parts = _best_parts(subset, best)
        found = _best_chain(inner, subset, bound, low=sum(best[p][0] for p in parts))
        if found is not None:
            best[subset] = (consider(found), found)
        for option in _partitions_with(subset, best) if subset in best else []:
            consider({n: span for part in option for n, span in best[part][1].items()})
    return placement


def _best_parts(
    subset: tuple[str, ...], known: dict[tuple[str, ...], tuple[float, Layout]]
) -> Sequence[tuple[str, ...]]:
    """The disjoint subsets of `subset` searched before whose flows add up to most."""
    inside = [s for s in known if set(s) <= set(subset)]

    def best(options: list[tuple[str, ...]]) -> tuple[float, list[tuple[str, ...]]]:
        top: tuple[float, list[tuple[str, ...]]] = (0.0, [])
        for index, option in enumerate(options):
            value, rest = best([s for s in options[index + 1 :] if not set(s) & set(option)])
            top = max(top, (value + known[option][0], [option, *rest]), key=lambda pair: pair[0])
        return top

    return best(inside)[1]


def _upper_bound(task: Task, subset: Sequence[str]) -> float:
    groups = [g for g in task.groups if g.region in subset]
    if sum(g.size * g.max_layers for g in groups) < task.problem.num_layers:
        return 0.0
    return bounds.b1(groups, task.problem.num_layers)


def _most_beside(rest: Sequence[tuple[str, ...]], most: Mapping[tuple[str, ...], float]) -> float:
    """The largest sum of bounds over disjoint sets of regions among `rest`."""
    best = 0.0
    for index, option in enumerate(rest):
        left = [s for s in rest[index + 1 :] if not set(s) & set(option)]
        best = max(best, most[option] + _most_beside(left, most))
    return best


def _partitions_with(subset: tuple[str, ...], known: dict[tuple[str, ...], tuple[float, Layout]]) -> Iterator[list]:
    """The best few sets of disjoint subsets that hold `subset`, by the sum of their flows."""

    def extend(chosen: list[tuple[str, ...]], rest: list[tuple[str, ...]]) -> Iterator[list[tuple[str, ...]]]:
        taken = {r for s in chosen for r in s}
        free = [s for s in rest if not taken & set(s)]
        if not free:
            yield chosen
        for index, option in enumerate(free):
            yield from extend([*chosen, option], free[index + 1 :])

    found = sorted(
        extend([subset], [s for s in known if s != subset]), key=lambda parts: -sum(known[p][0] for p in parts)
    )
    yield from (parts for parts in found[:3] if len(parts) > 1)


def _best_chain(task: Task, subset: Sequence[str], most: float, low: float) -> Layout | None:
    """The best chain through the regions of `subset`, if one carries more than `low`."""
    problem, layers = task.problem, task.problem.num_layers
    groups = [g for g in task.groups if g.region in subset]
    if sum(g.size * g.max_layers for g in groups) < layers:
        return None
    bound = min(most, bounds.b2(groups, layers, low=0.0, high=bounds.b1(groups, layers), over=task.watch.over))
    best: list[tuple[float, Layout]] = []
    for cap in crossing_capacities(task, groups):
        search = PatternSearch(
            groups,
            layers,
            task.watch,
            task.solver,
            task.seed,
            task.options.get("max_stages"),
            link_cap=inner_link_capacity(task, groups),
            crossing_cap=cap,
        )
        seen: list[tuple[float, Layout]] = []

        def evaluate(chain: Chain, seen: list[tuple[float, Layout]] = seen) -> float:
            top: tuple[float, Layout] = (0.0, {})
            for order in _orders(chain):
                layout = lay_out(order, groups, layers)
                reached = problem.max_flow(layout, partial_inference=task.partial_inference).tokens_per_s
                if reached > top[0]:
                    top = (reached, layout)
            seen.append(top)
            return top[0]

        search_flow(search, bound, evaluate, low=max([low, *(v for v, _ in best)]))
        best += seen
        if task.watch.over() or max([low, *(v for v, _ in best)]) >= bound * (1 - PRECISION):
            break
    return max(best, key=lambda pair: pair[0])[1] if best else None


def _orders(chain: Chain) -> Iterator[Chain]:
    """Orders of the regions between the first and the last."""
    if len(chain) <= 3:
        yield chain
        return
    for count, middle in enumerate(permutations(chain[1:-1])):
        if count >= MOST_ORDERS:
            return
        yield [chain[0], *middle, chain[-1]]


def crossing_capacities(task: Task, groups: Sequence[Group]) -> list[float]:
    """Capacities, in tokens/s, to plan crossings with: of links between regions the fastest, median and slowest."""
    regions: dict[str, list[str]] = {}
    for group in groups:
        regions.setdefault(group.region, []).extend(group.nodes)
    if len(regions) < 2:
        return [float("inf")]
    seen: list[float] = []
    for a, b in permutations(regions, 2):
        pairs = [(x, y) for x in regions[a] for y in regions[b]]
        step = max(1, len(pairs) // LINKS_LOOKED_AT)
        seen += [task.problem.link_capacity(x, y) for x, y in pairs[::step]]
    return sorted({round(c, 3) for c in (max(seen), statistics.median(seen), min(seen))}, reverse=True)


def inner_link_capacity(task: Task, groups: Sequence[Group]) -> float:
    """Tokens/s of the slowest link within a region, of those looked at."""
    slowest = float("inf")
    regions: dict[str, list[str]] = {}
    for group in groups:
        regions.setdefault(group.region, []).extend(group.nodes)
    for nodes in regions.values():
        pairs = [(x, y) for x in nodes for y in nodes if x != y]
        step = max(1, len(pairs) // LINKS_LOOKED_AT)
        slowest = min([slowest, *(task.problem.link_capacity(x, y) for x, y in pairs[::step])])
    return slowest


__all__ = ["find", "groups_of"]
