"""Several regions: chains that pass one region after another, and sets of regions that serve side by side."""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from itertools import combinations, pairwise, permutations

from helix_kit.flow import Placement
from helix_kit.placement.bounds import bounds
from helix_kit.placement.groups import Group, groups_of
from helix_kit.placement.method import Task
from helix_kit.placement.pattern import mixed_regions as spread
from helix_kit.placement.pattern.search import PRECISION, Chain, PatternSearch, lay_out, search_flow
from helix_kit.placement.watch import Watch

MOST_ORDERS = 24
MOST_PARTITIONS = 5000
ALL_OF = 8
"""Of so many regions all partitions are looked at, 4140; of more, some."""
FEW = 3
"""Of so many regions all partitions are soon tried; of more, the ones that promise most come first."""
USUAL_LOSS = 0.02
"""Share of its bound that a set is expected to miss for each crossing in it, until some sets of its size are known."""
COARSE = 0.004
SMALL = 400
"""Of so many nodes sets are searched as long as there is time; of more, only those that promise a better plan."""
LATER_SETS = 4
"""A set of regions may take a quarter of the time that is left, if others follow."""
LINKS_LOOKED_AT = 400
Subset = tuple[str, ...]


def find(task: Task, bound: float) -> Placement | None:
    """The best placement over chains of regions and partitions into chains, within the task's time.

    `bound` is a proven bound on the flow: the search ends when it is reached.
    """
    problem, watch = task.problem, task.watch
    names = sorted({g.region for g in task.groups}, key=[g.region for g in task.groups].index)
    best: dict[Subset, tuple[float, Placement]] = {}
    value, placement = 0.0, None

    def consider(layout: Placement) -> float:
        nonlocal value, placement
        reached = task.max_flow(layout).tokens_per_s
        if reached > value:
            value, placement = reached, layout
            watch.report(value=reached, message=f"{len({problem.cluster.region_of(n) for n in layout})} regions")
        return reached

    partitions = list(_partitions(names))
    bounded = cache(lambda subset: _upper_bound(task, subset))
    known: dict[Subset, float] = {}
    last: Subset | None = None
    small = sum(g.size for g in task.groups) <= SMALL
    while not watch.is_over() and value < bound * (1 - PRECISION):
        # Of many regions even a bound for each set takes long: the best of those looked at in a share of the time.
        looking = Watch(watch.left_s / LATER_SETS, stop=watch.stopped)
        subset = _next_set(partitions, bounded, known, value, looking, last)
        if subset is None and small:  # nothing promises more, but there is time, and a set takes little of it
            looking = Watch(watch.left_s / LATER_SETS, stop=watch.stopped)
            subset = _next_set(partitions, bounded, known, value, looking, hopeful=False)
        if subset is None:
            break
        last = subset
        # One set must not take the time of all; what its parts reach side by side is to be beaten.
        few = len(names) <= FEW and len(subset) == len(names)
        share = watch.left_s * (0.7 if few else 1 / LATER_SETS)
        inner = replace(task, watch=Watch(share, stop=watch.stopped))
        low = sum(best[p][0] for p in _best_parts(subset, best))
        if FEW < len(names) <= ALL_OF:  # of more regions there are too many partitions to ask each time
            low = max(low, _needed(subset, partitions, bounded, known, value))
        found = _best_chain(inner, subset, bound, low, COARSE if len(names) > FEW and len(subset) > 1 else PRECISION)
        if found is not None:
            best[subset] = (consider(found), found)
        known[subset] = best[subset][0] if subset in best else low
        for option in _partitions_with(subset, best) if subset in best else []:
            consider({n: span for part in option for n, span in best[part][1].items()})
    return placement


def _partitions(names: Sequence[str]) -> Iterator[list[Subset]]:
    """Every way to split the regions into sets; all alone and all together first.

    Of more than eight regions only some thousands: as many of each number of sets, drawn at random (always the same).
    """
    yield [(n,) for n in names]
    if len(names) > 1:
        yield [tuple(names)]

    def split(rest: Sequence[str]) -> Iterator[list[Subset]]:
        if not rest:
            yield []
            return
        for size in range(len(rest)):
            for others in combinations(rest[1:], size):
                for more in split([n for n in rest[1:] if n not in others]):
                    yield [(rest[0], *others), *more]

    if len(names) <= ALL_OF:
        yield from (p for p in split(names) if 1 < len(p) < len(names))
        return
    rng, drawn = random.Random(0), set()
    for count in range(MOST_PARTITIONS):
        shuffled = rng.sample(range(len(names)), len(names))
        size = 2 + count % (len(names) - 2)
        cuts = [0, *sorted(rng.sample(range(1, len(names)), size - 1)), len(names)]
        partition = tuple(sorted(tuple(sorted(shuffled[a:b])) for a, b in pairwise(cuts)))
        if partition not in drawn:
            drawn.add(partition)
            yield [tuple(names[i] for i in part) for part in partition]


def _next_set(
    partitions: Sequence[Sequence[Subset]],
    most: Callable[[Subset], float],
    known: Mapping[Subset, float],
    value: float,
    watch: Watch,
    last: Subset | None = None,
    hopeful: bool = True,
) -> Subset | None:
    """The set to search now, of the partition that promises most and could beat `value`; None: there is none.

    `most` gives bounds, `known` is what sets searched before reached, or could not beat. What stands beside `last`, a
    set of several regions searched just before, comes first: half a partition serves nobody. Once the watch is over,
    the best until then. With `hopeful`, of many regions only sets that need lose no more than the best of their size
    did.
    """
    names = [n for (n,) in partitions[0]]
    loss, least_loss = {}, {}
    for size in range(1, len(names) + 1):
        seen = [1 - v / most(s) for s, v in known.items() if len(s) == size and most(s) > 0]
        seen = seen or [USUAL_LOSS * (size - 1)]
        loss[size], least_loss[size] = statistics.fmean(seen), min(seen)
    top: tuple[bool, float, Subset | None] = (False, -1.0, None)
    for index, partition in enumerate(partitions):
        if watch.is_over():
            break
        new = [s for s in partition if s not in known and most(s) > 0]
        limits = {s: known[s] if s in known else most(s) for s in partition}
        if not new or sum(limits.values()) <= value * (1 + PRECISION):
            continue
        if index == 0 or (index == 1 and len(names) <= FEW):
            # Each region alone is quick and, where links are thin, nearly all there is.
            return new[0]
        promise = sum(limit * (1 if s in known else 1 - loss[len(s)]) for s, limit in limits.items())
        hope = sum(limit * (1 if s in known else 1 - least_loss[len(s)]) for s, limit in limits.items())
        if hopeful and len(names) > FEW and hope <= value:
            continue  # a set of hundreds of machines takes long, and would likely bring nothing
        begun = last is not None and len(last) > 1 and last in partition and promise > value
        top = max(top, (begun, promise, max(new, key=most)), key=lambda option: option[:2])
    return top[2]


def _needed(
    subset: Subset,
    partitions: Sequence[Sequence[Subset]],
    most: Callable[[Subset], float],
    known: Mapping[Subset, float],
    value: float,
) -> float:
    """What `subset` must carry for some partition that holds it to beat `value`, its others at their bounds."""
    others = ([s for s in partition if s != subset] for partition in partitions if subset in partition)
    return value - max(sum(known[s] if s in known else most(s) for s in rest) for rest in others)


def _best_parts(subset: Subset, known: dict[Subset, tuple[float, Placement]]) -> Sequence[Subset]:
    """The disjoint subsets of `subset` searched before whose flows add up to most."""
    inside = [s for s in known if set(s) <= set(subset)]

    def best(options: list[Subset]) -> tuple[float, list[Subset]]:
        top: tuple[float, list[Subset]] = (0.0, [])
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


def _partitions_with(subset: Subset, known: dict[Subset, tuple[float, Placement]]) -> Iterator[list]:
    """The best few sets of disjoint subsets that hold `subset`, by the sum of their flows."""

    def extend(chosen: list[Subset], rest: list[Subset]) -> Iterator[list[Subset]]:
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


def _best_chain(task: Task, subset: Sequence[str], most: float, low: float, precision: float) -> Placement | None:
    """The best placement on the regions of `subset` found, as a chain or spread, if one carries more than `low`."""
    problem, layers = task.problem, task.problem.num_layers
    groups = [g for g in task.groups if g.region in subset]
    if sum(g.size * g.max_layers for g in groups) < layers:
        return None
    bound = min(most, bounds.of_nodes(tuple(groups), layers, task.watch.is_over))
    best: list[tuple[float, Placement]] = []
    for cap in crossing_capacities(task, groups):
        search = PatternSearch(
            groups,
            layers,
            task.watch,
            task.options.solver,
            task.options.seed,
            task.options.max_stages,
            link_cap=inner_link_capacity(task, groups),
            crossing_cap=cap,
        )
        seen: list[tuple[float, Placement]] = []

        def evaluate(chain: Chain, seen: list[tuple[float, Placement]] = seen) -> float:
            top: tuple[float, Placement] = (0.0, {})
            for order in _orders(chain):
                layout = lay_out(order, groups, layers)
                reached = task.max_flow(layout).tokens_per_s
                if reached > top[0]:
                    top = (reached, layout)
                if reached >= min(stage.rate for part in order for stage in part) * (1 - PRECISION):
                    break
            seen.append(top)
            return top[0]

        search_flow(search, bound, evaluate, low=max([low, *(v for v, _ in best)]), precision=precision)
        best += seen
        if task.watch.is_over() or max([low, *(v for v, _ in best)]) >= bound * (1 - PRECISION):
            break
    layout = max(best, key=lambda pair: pair[0])[1] if best else None
    reached = max([low, *(v for v, _ in best)])
    if len(subset) > 1 and not task.watch.is_over() and reached < bound * (1 - PRECISION):
        wide = spread.find(task, groups, bound, reached, bounds.widest_crossing(problem, groups))
        if wide is not None and (task.max_flow(wide).tokens_per_s > reached):
            layout = wide
    return layout


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
