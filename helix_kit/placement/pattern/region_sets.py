"""Partitions of regions into sets, and which set to search next."""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from itertools import combinations, pairwise

from helix_kit.placement.pattern.search import PRECISION
from helix_kit.placement.watch import Watch

MAX_PARTITIONS = 5000
"""Partitions drawn when there are more regions than MAX_REGIONS_FOR_ALL."""
MAX_REGIONS_FOR_ALL = 8
"""Up to this many regions all partitions are considered (8 regions have 4140). With more regions some are drawn."""
FEW_REGIONS = 3
"""Up to this many regions all sets are soon searched. With more, the sets that promise most are searched first."""
USUAL_LOSS = 0.02
"""Share of its bound that a set is expected to miss for each crossing in it, until sets of its size are searched."""
NUM_JOINED = 3
"""Partitions that are tried with a set just searched."""

RegionSet = tuple[str, ...]
"""Names of regions that are searched together."""
Partition = list[RegionSet]


class RegionSets:
    """The sets of regions in all partitions, with the tokens/s that searched sets reached and a bound for each set.

    Parameters
    ----------
    names
        The regions.
    upper_bound
        Bound on the tokens/s of a set. It is asked only for sets that are looked at, and once for each.
    """

    def __init__(self, names: Sequence[str], upper_bound: Callable[[RegionSet], float]) -> None:
        self.names = list(names)
        self.partitions = list(partitions_of(names))
        self.upper_bound = cache(upper_bound)
        self.known: dict[RegionSet, float] = {}
        """Tokens/s that each set searched before reached, or that it was searched for without success."""

    def next_set(
        self, value: float, watch: Watch, last: RegionSet | None = None, only_promising: bool = True
    ) -> RegionSet | None:
        """The set to search next: one of the partition that promises most; None when no partition can beat `value`.

        A partition can beat `value` (tokens/s) if the flows of its searched sets and the bounds of its other sets add
        up to more. What it promises is the same sum with each bound cut by the loss that searched sets of that size
        show.

        Parameters
        ----------
        value
            Tokens/s of the best plan.
        watch
            When it is over, the best of the partitions looked at until then counts.
        last
            The set searched last. A partition that holds it comes first if it promises more than `value`, because a set
            of several regions is of use only once the other sets of its partition are searched too.
        only_promising
            With more than FEW_REGIONS regions, skip partitions that do not beat `value` even if each of their sets
            loses no more than the best set of its size did.
        """
        loss, least_loss = self._losses()
        best: tuple[bool, float, RegionSet | None] = (False, -1.0, None)
        for index, partition in enumerate(self.partitions):
            if watch.is_over():
                break
            new = [s for s in partition if s not in self.known and self.upper_bound(s) > 0]
            limits = {s: self._limit(s) for s in partition}
            if not new or sum(limits.values()) <= value * (1 + PRECISION):
                continue
            if index == 0 or (index == 1 and len(self.names) <= FEW_REGIONS):
                # Each region alone is searched quickly and is, where links are thin, nearly all there is.
                return new[0]
            promise = sum(limit * (1 if s in self.known else 1 - loss[len(s)]) for s, limit in limits.items())
            at_best = sum(limit * (1 if s in self.known else 1 - least_loss[len(s)]) for s, limit in limits.items())
            if only_promising and len(self.names) > FEW_REGIONS and at_best <= value:
                continue
            begun = last is not None and len(last) > 1 and last in partition and promise > value
            best = max(best, (begun, promise, max(new, key=self.upper_bound)), key=lambda option: option[:2])
        return best[2]

    def _limit(self, regions: RegionSet) -> float:
        """What the set reached, if it was searched, or else its bound."""
        return self.known[regions] if regions in self.known else self.upper_bound(regions)

    def _losses(self) -> tuple[dict[int, float], dict[int, float]]:
        """Mean and least share of their bounds that the searched sets of each size miss."""
        mean, least = {}, {}
        for size in range(1, len(self.names) + 1):
            losses = [
                1 - reached / self.upper_bound(s)
                for s, reached in self.known.items()
                if len(s) == size and self.upper_bound(s) > 0
            ]
            losses = losses or [USUAL_LOSS * (size - 1)]
            mean[size], least[size] = statistics.fmean(losses), min(losses)
        return mean, least

    def required_flow(self, regions: RegionSet, value: float) -> float:
        """Tokens/s that a set must carry so that some partition that holds it beats `value`.

        The other sets of the partition count with what they reached or, before they are searched, with their bounds.
        """
        others = ([s for s in partition if s != regions] for partition in self.partitions if regions in partition)
        return value - max(sum(self._limit(s) for s in rest) for rest in others)

    @staticmethod
    def best_sum_within(regions: RegionSet, flows: Mapping[RegionSet, float]) -> float:
        """The greatest sum of flows of disjoint subsets of a set; `flows` are tokens/s of the sets searched."""
        inside = [s for s in flows if set(s) <= set(regions)]

        def best(options: list[RegionSet]) -> tuple[float, list[RegionSet]]:
            top: tuple[float, list[RegionSet]] = (0.0, [])
            for index, option in enumerate(options):
                value, rest = best([s for s in options[index + 1 :] if not set(s) & set(option)])
                top = max(top, (value + flows[option], [option, *rest]), key=lambda pair: pair[0])
            return top

        return sum(flows[s] for s in best(inside)[1])

    @staticmethod
    def partitions_with(regions: RegionSet, flows: Mapping[RegionSet, float]) -> list[Partition]:
        """The best few lists of disjoint sets that hold a given set and others, by the sum of their flows."""

        def extend(chosen: Partition, rest: list[RegionSet]) -> Iterator[Partition]:
            taken = {r for s in chosen for r in s}
            free = [s for s in rest if not taken & set(s)]
            if not free:
                yield chosen
            for index, option in enumerate(free):
                yield from extend([*chosen, option], free[index + 1 :])

        found = sorted(
            extend([regions], [s for s in flows if s != regions]), key=lambda sets: -sum(flows[s] for s in sets)
        )
        return [sets for sets in found[:NUM_JOINED] if len(sets) > 1]


def partitions_of(names: Sequence[str]) -> Iterator[Partition]:
    """Partitions of regions into sets: first each region alone, then all together, then the others.

    Of more than MAX_REGIONS_FOR_ALL regions only some are drawn at random (the same at every call), as many with two
    sets as with three and so on.
    """
    yield [(n,) for n in names]
    if len(names) > 1:
        yield [tuple(names)]
    if len(names) <= MAX_REGIONS_FOR_ALL:
        yield from (p for p in _all_partitions(names) if 1 < len(p) < len(names))
        return
    rng, drawn = random.Random(0), set()
    for count in range(MAX_PARTITIONS):
        shuffled = rng.sample(range(len(names)), len(names))
        size = 2 + count % (len(names) - 2)
        cuts = [0, *sorted(rng.sample(range(1, len(names)), size - 1)), len(names)]
        partition = tuple(sorted(tuple(sorted(shuffled[a:b])) for a, b in pairwise(cuts)))
        if partition not in drawn:
            drawn.add(partition)
            yield [tuple(names[i] for i in part) for part in partition]


def _all_partitions(names: Sequence[str]) -> Iterator[Partition]:
    """Every partition: the first name with any others, and every partition of the names that are left."""
    if not names:
        yield []
        return
    for size in range(len(names)):
        for others in combinations(names[1:], size):
            for rest in _all_partitions([n for n in names[1:] if n not in others]):
                yield [(names[0], *others), *rest]
