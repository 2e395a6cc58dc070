"""Better layer ranges by annealing: from any placement, for as long as there is time.

The pattern program makes placements of whole stages. Annealing moves single nodes, so it also makes what stages cannot:
replicas of the whole model beside pipelines, and ranges that overlap. It works on sets of regions, each of which holds
the model by itself, and on all nodes together. A leg is a fixed number of steps with a fixed seed; the clock decides
only how many legs there are, so more time continues the same search.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from helix_kit.flow import Placement
from helix_kit.flow.arrays import ArrayFlows
from helix_kit.placement import bounds
from helix_kit.placement.method import Task
from helix_kit.placement.watch import Watch

PRECISION = 2e-4
"""A set that is this close to its bound (relative) is not annealed further."""
MAX_FLOW_NODES = 64
"""With more nodes, annealing the exact flow is too slow to find anything."""
MAX_SETS_REGIONS = 3
"""Up to this many regions, every set of regions is annealed by itself; with more, each region and all together."""
COVERAGE_STEPS, COVERAGE_CHUNK = 100_000, 20_000
"""Steps of the first leg on the layers alone, and steps between two looks at the clock (about 30 ms)."""
FLOW_STEPS, FLOW_CHUNK = 100_000, 10_000
"""The same for legs on the exact flow."""
CHUNK_S = 0.03
"""Seconds of a chunk on a usual machine, for searches that count their work."""
BOUND_LEGS = 4
"""Legs on the layers alone of a set whose links keep its flow below what layers hold."""
MAX_GROWTH = 10
"""Legs grow when they find nothing, up to this many times the first."""
HEATS = (0.3, 0.1, 0.03)
"""Temperatures at which legs start, as shares of the target, in turn: hot ones forget where they started."""
FLOW_HEATS = (0.01, 0.005, 0.015, 0.007, 0.02)
REACHES = (0.5, 0.25, 1.0, 0.1)
"""Targets of legs in turn, as shares of the distance between value and bound."""
Numbers = NDArray[np.int64]


@dataclass
class _RegionSet:
    """A set of regions that can hold the model, and how far annealing has come on it."""

    nodes: Numbers
    """Numbers of its nodes."""
    bound: float
    """Tokens/s that it cannot exceed."""
    bound_of_rest: float
    """Tokens/s that the other regions cannot exceed beside it."""
    starts: Numbers
    ends: Numbers
    covered: float = 0.0
    """Tokens/s that every layer's nodes have together in `starts` and `ends`."""
    value: float = 0.0
    """Tokens/s of the best flow found on these nodes alone."""
    placement: dict[str, tuple[int, int]] = field(default_factory=dict)
    links_bind: bool = False
    """Whether links keep the flow below what layers hold."""
    legs: int = 0
    growth: float = 1.0
    flow_legs: int = 0
    flow_growth: float = 1.0


class Annealing:
    """Annealing in legs, each of which may improve the best placement.

    Parameters
    ----------
    task
        Problem, options and the watch that values are reported to.
    flows
        Flows of all nodes that can hold a layer.
    pins
        Nodes that do not move, with their ranges.

    Examples
    --------
    >>> from helix_kit.cluster import Cluster
    >>> from helix_kit.model import Model
    >>> from helix_kit.placement.groups import groups_of
    >>> from helix_kit.placement.pattern.mixed_regions import array_flows
    >>> from helix_kit.placement.problem import Problem
    >>> cluster = Cluster.model_validate({"name": "three", "nodes": [{"gpu": "L4", "count": 3}]})
    >>> model = Model.preset("llama2-70b").model_copy(update={"num_layers": 8})
    >>> problem = Problem.of(cluster, model)
    >>> task = Task(problem, Watch(10.0), groups_of(problem))
    >>> annealing = Annealing(task, array_flows(problem, ["L4-0", "L4-1", "L4-2"], True))
    >>> annealing.offer({"L4-0": (0, 4), "L4-1": (4, 8)})
    >>> before = annealing.value
    >>> annealing.advance(Watch(5.0))
    >>> annealing.value >= before
    True
    """

    def __init__(self, task: Task, flows: ArrayFlows, pins: Mapping[str, tuple[int, int]] | None = None) -> None:
        self.task, self.flows, self.pins = task, flows, dict(pins or {})
        self.num_layers = task.problem.num_layers
        self.value = 0.0
        """Tokens/s of the best placement."""
        self.placement: Placement = {}
        self.seed = task.options.seed
        self.throughput = flows.throughput_tokens_per_s
        self.largest = np.array([task.problem.longest_range(n) for n in flows.names], np.int64)
        self.sets = self._region_sets()

    def _region_sets(self) -> dict[tuple[str, ...], _RegionSet]:
        """The sets of regions that can hold the model, the whole cluster last."""
        regions = list(dict.fromkeys(g.region for g in self.task.groups))
        if self.pins:
            names: list[tuple[str, ...]] = []
        elif len(regions) <= MAX_SETS_REGIONS:
            names = [s for size in range(1, len(regions)) for s in combinations(regions, size)]
        else:
            names = [(r,) for r in regions]
        sets = {}
        rng = np.random.default_rng(self.seed)
        for chosen in [*names, tuple(regions)]:
            nodes = self._nodes_of(chosen)
            if self.largest[nodes].sum() < self.num_layers:
                continue
            starts = np.array([rng.integers(self.num_layers - k + 1) for k in self.largest[nodes]], np.int64)
            ends = starts + self.largest[nodes]
            for at, node in enumerate(nodes):
                if span := self.pins.get(self.flows.names[node]):
                    starts[at], ends[at] = span
            rest = [r for r in regions if r not in chosen]
            sets[chosen] = _RegionSet(nodes, self._bound_of(chosen), self._bound_of(rest), starts, ends)
        return sets

    def _nodes_of(self, regions: Sequence[str]) -> Numbers:
        names = [n for g in self.task.groups if g.region in regions for n in g.nodes]
        return np.array(sorted(self.flows.index[n] for n in names), np.int64)

    def _bound_of(self, regions: Sequence[str]) -> float:
        """Tokens/s that the nodes of some regions cannot exceed; 0 where they cannot hold the model."""
        groups = bounds.relaxed_groups(self.task.problem, [g for g in self.task.groups if g.region in regions])
        if sum(g.size * g.max_layers for g in groups) < self.num_layers:
            return 0.0
        return bounds.spread_bound(groups, self.num_layers)

    @property
    def is_idle(self) -> bool:
        """Whether no leg can improve anything."""
        return not self.sets

    def offer(self, placement: Placement) -> None:
        """Consider a placement found elsewhere: for the whole cluster, and what it puts on each set of regions."""
        self._consider(placement)
        for regions, part in self.sets.items():
            self._offer_part(regions, part, placement)

    def _offer_part(self, regions: Iterable[str], part: _RegionSet, placement: Placement) -> None:
        names = {self.flows.names[n] for n in part.nodes}
        inside = {n: span for n, span in placement.items() if n in names}
        value = self.flows.of_placement(inside)
        if value > part.value:
            part.value, part.placement = value, inside
        starts, ends = part.starts.copy(), part.ends.copy()
        for at, node in enumerate(part.nodes):
            if span := inside.get(self.flows.names[node]):
                starts[at], ends[at] = span
        covered = self._coverage(part, starts, ends)
        if covered > part.covered:
            part.starts, part.ends, part.covered = starts, ends, covered

    def _coverage(self, part: _RegionSet, starts: Numbers, ends: Numbers) -> float:
        """The least tokens/s that the nodes of any layer have together."""
        change = np.zeros(self.num_layers + 1)
        tokens = self.throughput[part.nodes, self.flows.columns[starts, ends]]
        np.add.at(change, starts, tokens)
        np.subtract.at(change, ends, tokens)
        return float(np.cumsum(change)[:-1].min())

    def _consider(self, placement: Placement, value: float | None = None) -> None:
        value = self.flows.of_placement(placement) if value is None else value
        if value > self.value:
            self.value, self.placement = value, dict(placement)
            self.task.watch.report(value=value, message="annealing", placement=self.placement)

    def advance(self, watch: Watch) -> None:
        """One leg on each set in turn, and one on the whole cluster after each, until the watch is over."""
        whole = list(self.sets.values())[-1]
        for regions, part in self.sets.items():
            if watch.is_over():
                return
            if part is not whole and part.bound + part.bound_of_rest <= self.value * (1 + PRECISION):
                continue
            self._leg(regions, part, watch)
            if part is not whole and self._is_exact(whole) and not watch.is_over():
                self._leg(list(self.sets)[-1], whole, watch)

    def _is_exact(self, part: _RegionSet) -> bool:
        """Whether the set is annealed by its exact flow, since layers alone do not say what it carries."""
        is_whole = len(part.nodes) == len(self.flows.names)
        crosses = is_whole and len({g.region for g in self.task.groups}) > 1
        matters = part.links_bind or crosses or not self.task.options.partial_inference
        return matters and len(part.nodes) <= MAX_FLOW_NODES

    def _leg(self, regions: tuple[str, ...], part: _RegionSet, watch: Watch) -> None:
        """A leg on what a set's layers hold, or on its exact flow, or both."""
        by_layers = self.task.options.partial_inference and not (part.links_bind and part.legs >= BOUND_LEGS)
        for is_due, leg in (
            (by_layers and part.covered < part.bound * (1 - PRECISION), self._coverage_leg),
            (self._is_exact(part) and part.value < part.bound * (1 - PRECISION), self._flow_leg),
        ):
            before = part.value
            if is_due and not watch.is_over():
                leg(part, watch)
            if part.value > before:
                self._join(regions)

    def _join(self, regions: tuple[str, ...]) -> None:
        """Consider a set's placement beside the best of the sets that share no region with it."""
        placement = dict(self.sets[regions].placement)
        taken = set(regions)
        for others in sorted(self.sets, key=lambda r: -self.sets[r].value):
            if not taken & set(others):
                placement |= self.sets[others].placement
                taken |= set(others)
        # Nodes of regions that hold no model of their own keep what they did in the best placement.
        rest = {n: s for n, s in self.placement.items() if n not in placement}
        self._consider({**rest, **placement})
        self._consider(placement)
        whole = list(self.sets.values())[-1]
        if self.value > whole.value and len(whole.nodes) == len(self.flows.names):
            self._offer_part((), whole, self.placement)

    def _free(self, part: _RegionSet) -> Numbers:
        return np.array([at for at, n in enumerate(part.nodes) if self.flows.names[n] not in self.pins], np.int64)

    def _coverage_leg(self, part: _RegionSet, watch: Watch) -> None:
        """Anneal what the layers of a set have together."""
        from helix_kit.placement.annealing.moves import Nodes, Ranges, Schedule, anneal_coverage

        free = self._free(part)
        if not len(free):
            return
        value, leg = part.covered, part.legs
        target = value + REACHES[leg % len(REACHES)] * (part.bound - value)
        steps = int(COVERAGE_STEPS * part.growth)
        heat = HEATS[leg % len(HEATS)] * target
        nodes = Nodes(
            np.ascontiguousarray(self.throughput[part.nodes]), self.largest[part.nodes], free, self.flows.columns
        )
        now = Ranges(part.starts.copy(), part.ends.copy())
        best = now.copy()
        chunks = max(1, round(steps / COVERAGE_CHUNK))
        seed = self.seed * 7919 + leg * 1009
        for chunk in range(chunks):
            if watch.is_over():
                return
            watch.spend(CHUNK_S)
            hot, cold = heat * (1 - chunk / chunks), heat * (1 - (chunk + 1) / chunks) + 1e-9 * target
            schedule = Schedule(hot, cold, COVERAGE_CHUNK, seed + chunk)
            anneal_coverage(nodes, now, best, self.num_layers, target, schedule)
            covered = self._coverage(part, best.starts, best.ends)
            if covered > part.covered:
                part.starts, part.ends, part.covered = *best.copy(), covered
            if covered >= target * (1 - 1e-9):
                break
        part.legs += 1
        if part.covered <= value * (1 + 1e-6):
            part.growth = min(MAX_GROWTH, part.growth * 1.5)
            return
        placement = self._named(part, part.starts, part.ends)
        reached = self.flows.of_placement(placement)
        part.links_bind = reached < part.covered * (1 - 1e-3)
        if reached > part.value:
            part.value, part.placement = reached, placement

    def _flow_leg(self, part: _RegionSet, watch: Watch) -> None:
        """Anneal the exact flow of a set, from its best placement."""
        from helix_kit.placement.annealing.moves import Nodes, Ranges, Schedule, anneal_flow

        free = self._free(part)
        if not len(free) or not part.placement:
            return
        flows, unit = self.flows, self.flows.units_per_token
        starts, ends = part.starts.copy(), part.ends.copy()
        for at, node in enumerate(part.nodes):
            if span := part.placement.get(flows.names[node]):
                starts[at], ends[at] = span
        before = part.value
        leg = part.flow_legs
        target = before + REACHES[leg % len(REACHES)] * (part.bound - before)
        heat = FLOW_HEATS[leg % len(FLOW_HEATS)] * target * unit
        chunks = max(1, round(FLOW_STEPS * part.flow_growth / FLOW_CHUNK))
        now = Ranges(starts, ends)
        best = now.copy()
        capacities = flows.capacities(part.nodes)
        nodes = Nodes(capacities.throughput.astype(float), self.largest[part.nodes], free, capacities.columns)
        partial_inference = self.task.options.partial_inference
        for chunk in range(chunks):
            if watch.is_over():
                return
            watch.spend(CHUNK_S)
            hot, cold = heat * (1 - chunk / chunks), heat * (1 - (chunk + 1) / chunks) + 1e-9
            schedule = Schedule(hot, cold, FLOW_CHUNK, self.seed * 7919 + leg * 1013 + chunk)
            found = anneal_flow(
                nodes, capacities, now, best, self.num_layers, partial_inference, target * unit, schedule
            )
            reached = found / unit
            if reached > part.value:
                placement = self._named(part, best.starts, best.ends)
                # A placement of fewer nodes may carry as much: the same value is asked of the same network.
                part.value, part.placement = self.flows.of_placement(placement), placement
            if reached >= target * (1 - 1e-9):
                break
        part.flow_legs += 1
        if part.value <= before * (1 + 1e-6):
            part.flow_growth = min(MAX_GROWTH, part.flow_growth * 1.5)

    def _named(self, part: _RegionSet, starts: Numbers, ends: Numbers) -> dict[str, tuple[int, int]]:
        names: Sequence[str] = self.flows.names
        placement = {names[n]: (int(s), int(e)) for n, s, e in zip(part.nodes, starts, ends)}
        if self.task.problem.is_uniform:
            return placement
        # A node with layers that its memory does not hold carries nothing.
        return {n: (s, e) for n, (s, e) in placement.items() if self.task.problem.fits(n, s, e) or n in self.pins}


__all__ = ["Annealing"]
