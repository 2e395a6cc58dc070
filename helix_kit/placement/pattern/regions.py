"""Several regions: chains that pass one region after another, and sets of regions that serve side by side.

Requests may pass several regions, or each region (or set of regions) may hold a whole copy of the model and serve
requests of its own. A plan is therefore a partition of the regions into sets; each set is searched by itself, and the
flows of the sets of a partition add up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from helix_kit.flow import Placement
from helix_kit.placement import bounds
from helix_kit.placement.method import Task
from helix_kit.placement.pattern.region_chain import place_on_set
from helix_kit.placement.pattern.region_sets import FEW_REGIONS, MAX_REGIONS_FOR_ALL, RegionSet, RegionSets
from helix_kit.placement.pattern.search import PRECISION, Candidate
from helix_kit.placement.watch import Watch

COARSE_PRECISION = 0.004
"""Precision of the search on a set of several regions when many regions make many sets to search."""
MAX_NODES_FOR_ALL = 400
"""Up to this many nodes, sets are searched while there is time. With more, only sets that promise a better plan."""
TIME_SHARE = 0.25
"""Share of the remaining time that a set of regions may take when others follow."""
MAX_AGAIN = 8
"""Sets that are searched again with stages that take longer to find."""
TIME_SHARE_OF_ALL = 0.7
"""Share of the remaining time for the set of all regions when there are few regions, and so few other sets."""


class PartitionSearch:
    """Searches sets of regions one after another, and joins the best of them to plans.

    Each call of `advance` goes on where the last one stopped. A set whose search ran out of time is searched again.

    Parameters
    ----------
    task
        The problem; values are reported to its watch.
    """

    def __init__(self, task: Task) -> None:
        names = list(dict.fromkeys(g.region for g in task.groups))
        self.task, self.watch, self.names = task, task.watch, names
        self.bound = float("inf")
        self.sets = RegionSets(names, lambda regions: _upper_bound(task, regions))
        self.placed: dict[RegionSet, Candidate] = {}
        """The best placement of each set searched, where there is one."""
        self.best: Candidate | None = None
        self.is_finished = False
        """Whether no set is left whose search could give a better plan."""
        self._unfinished: set[RegionSet] = set()
        self._again: dict[RegionSet, int] = {}
        """How often a set was searched again, with stages that take longer to find."""
        self._exhausted: set[RegionSet] = set()
        """Those of them whose search was not cut short."""
        self._last: RegionSet | None = None

    @property
    def value(self) -> float:
        """Tokens/s of the best plan found."""
        return 0.0 if self.best is None else self.best.tokens_per_s

    def offer(self, candidate: Candidate) -> None:
        """Consider a plan found elsewhere: sets that cannot beat it are not searched."""
        if candidate.tokens_per_s > self.value:
            self.best = candidate

    def advance(self, watch: Watch, bound: float) -> None:
        """Search until the watch is over, or a plan reaches `bound` (a proven bound in tokens/s)."""
        self.watch, self.bound = watch, bound
        for regions in self._unfinished:
            self.sets.known.pop(regions, None)
        self._unfinished.clear()
        while not watch.is_over():
            if self.value >= bound * (1 - PRECISION):
                self.is_finished = True
                return
            found = self._next_set(self._last)
            if found is None:
                self.is_finished = not watch.is_over() and not self._unfinished
                return
            self._last = found
            self._search(found)

    @property
    def is_exhausted(self) -> bool:
        """Whether no set is left to search again."""
        return self._next_again() is None

    def search_again(self, watch: Watch, bound: float) -> None:
        """Search one set once more, with stages that take longer to find. It needs the compiled listing of stages.

        A set whose search is cut short comes again, after the others.
        """
        self.watch, self.bound = watch, bound
        regions = self._next_again()
        if regions is not None:
            self._again[regions] = self._again.get(regions, 0) + 1
            self._search(regions, again=True)

    def _next_set(self, last: RegionSet | None) -> RegionSet | None:
        """The set to search next. Looking for it takes a share of the time: of many sets even the bounds take long."""
        watch = self.watch
        regions = self.sets.next_set(self.value, watch.for_part(watch.left_s * TIME_SHARE), last)
        if regions is None and sum(g.size for g in self.task.groups) <= MAX_NODES_FOR_ALL:
            # No set promises a better plan, but there is time, and a set of few nodes takes little of it.
            looking = watch.for_part(watch.left_s * TIME_SHARE)
            regions = self.sets.next_set(self.value, looking, only_promising=False)
        return regions

    def _next_again(self) -> RegionSet | None:
        """The set that could gain most; what it could gain counts half after each search that was cut short."""
        gains = {s: self.sets.upper_bound(s) - max(reached, self._needed(s)) for s, reached in self.sets.known.items()}
        promising = (s for s in gains if gains[s] > PRECISION * self.sets.upper_bound(s))
        first = sorted(promising, key=lambda s: (-gains[s], s))[:MAX_AGAIN]
        left = [s for s in first if s not in self._exhausted]
        return max(left, key=lambda s: gains[s] / 2 ** self._again.get(s, 0), default=None)

    def _needed(self, regions: RegionSet) -> float:
        """Tokens/s with which a set makes a better plan. Of many regions it takes long to find, and 0 is returned."""
        few = len(self.names) <= MAX_REGIONS_FOR_ALL
        return self.sets.required_flow(regions, self.value) if few else 0.0

    def _search(self, regions: RegionSet, *, again: bool = False) -> None:
        """Search one set within a share of the time, for more than its subsets reach side by side."""
        watch, few = self.watch, len(self.names) <= FEW_REGIONS
        share = TIME_SHARE_OF_ALL if few and len(regions) == len(self.names) else TIME_SHARE
        inner = replace(self.task, watch=watch.for_part(watch.left_s * (1.0 if again else share)))
        low = self.sets.best_sum_within(regions, self._flows())
        if again:
            low = max(low, self.sets.known[regions])
        if len(regions) == len(self.names):
            low = max(low, self.value)
        if FEW_REGIONS < len(self.names) <= MAX_REGIONS_FOR_ALL:
            # Only here: it asks all partitions, of which more regions have too many.
            low = max(low, self.sets.required_flow(regions, self.value))
        precision = PRECISION if few or len(regions) == 1 else COARSE_PRECISION
        placement = place_on_set(inner, regions, self.bound, low, precision, is_thorough=again)
        is_cut_short = inner.watch.is_over()
        if again and not is_cut_short:
            self._exhausted.add(regions)
        if not again and is_cut_short:
            self._unfinished.add(regions)
        if placement is not None:
            candidate = self._consider(placement)
            if regions not in self.placed or candidate.tokens_per_s >= self.placed[regions].tokens_per_s:
                self.placed[regions] = candidate
        if regions not in self.placed:
            self.sets.known[regions] = low
            return
        self.sets.known[regions] = max(low if again else 0.0, self.placed[regions].tokens_per_s)
        for partition in self.sets.partitions_with(regions, self._flows()):
            self._consider({n: span for part in partition for n, span in self.placed[part].placement.items()})

    def _consider(self, placement: Placement) -> Candidate:
        """The placement with its maximum flow; it is kept and reported if it is the best plan so far."""
        candidate = Candidate(self.task.max_flow(placement).tokens_per_s, placement)
        if candidate.tokens_per_s > self.value:
            self.best = candidate
            regions = {self.task.problem.cluster.region_of(n) for n in placement}
            self.task.watch.report(candidate.tokens_per_s, message=f"{len(regions)} regions", placement=placement)
        return candidate

    def _flows(self) -> dict[RegionSet, float]:
        return {regions: candidate.tokens_per_s for regions, candidate in self.placed.items()}


def _upper_bound(task: Task, regions: Sequence[str]) -> float:
    """Bound B1 on the tokens/s of these regions alone; 0 when they cannot hold the model."""
    groups = [g for g in task.groups if g.region in regions]
    if sum(g.size * g.max_layers for g in groups) < task.problem.num_layers:
        return 0.0
    return bounds.spread_bound(groups, task.problem.num_layers)
