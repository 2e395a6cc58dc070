"""Better layer ranges where many nodes lie in several regions: annealing that counts what links between regions carry.

A target just above the best plan is asked for. Each leg starts from the best plan, is warmed up a little, and cools
down; then the exact maximum flow says what its placement carries. So the plan rises in small steps, and takes what
stages cannot express: regions side by side for a part of the model, and crossings spread over several layers.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from helix_kit.flow import Placement
from helix_kit.flow.arrays import ArrayFlows
from helix_kit.placement.method import Task
from helix_kit.placement.watch import Watch

RISE = 0.004
"""How far above the best plan the target of a leg is, relative."""
HEATS, COLD = (0.008, 0.012, 0.018), 0.004
"""Temperatures at which legs start, in turn, and at which they end, as shares of the target."""
STEPS_PER_NODE, CHUNK = 40_000, 50_000
"""Steps of the first legs for each node, and steps between two looks at the clock."""
CHUNK_S = 0.03
"""Seconds of a chunk on a usual machine, for searches that count their work."""
GROWTH, MAX_GROWTH = 1.5, 10.0
"""Legs grow after a turn of all heats that found nothing, up to so many times the first."""
Integers = NDArray[np.int64]


class CrossingAnnealing:
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
    Two idle nodes serve beside the others.

    >>> from helix_kit.cluster import Cluster
    >>> from helix_kit.model import Model
    >>> from helix_kit.placement.groups import groups_of
    >>> from helix_kit.placement.pattern.mixed_regions import array_flows
    >>> from helix_kit.placement.problem import Problem
    >>> cluster = Cluster.model_validate({"name": "four", "nodes": [{"gpu": "L4", "count": 4}]})
    >>> problem = Problem.of(cluster, Model.preset("llama2-70b").model_copy(update={"num_layers": 8}))
    >>> flows = array_flows(problem, [n.name for n in cluster.nodes], True)
    >>> annealing = CrossingAnnealing(Task(problem, Watch(10.0), groups_of(problem)), flows)
    >>> annealing.offer({"L4-0": (0, 4), "L4-1": (4, 8)})
    >>> before = annealing.value
    >>> annealing.advance(Watch(5.0))
    >>> annealing.value > before
    True
    """

    is_idle = False
    """Whether no leg can improve anything."""

    def __init__(self, task: Task, flows: ArrayFlows, pins: Mapping[str, tuple[int, int]] | None = None) -> None:
        self.task, self.flows, self.pins = task, flows, dict(pins or {})
        self.value = 0.0
        """Tokens/s of the best placement."""
        self.placement: Placement = {}
        count = len(flows.names)
        regions = list(dict.fromkeys(g.region for g in task.groups))
        of_node = {n: regions.index(g.region) for g in task.groups for n in g.nodes}
        self._region = np.array([of_node[n] for n in flows.names], np.int64)
        capacities = flows.capacities(np.arange(count))
        self._link = _median_links(capacities.links / flows.units_per_token, self._region, len(regions))
        self._throughput = np.minimum(flows.throughput_tokens_per_s, capacities.card / flows.units_per_token)
        self._largest = np.array([task.problem.longest_range(n) for n in flows.names], np.int64)
        self._free = np.array([i for i, n in enumerate(flows.names) if n not in self.pins], np.int64)
        self._starts, self._ends = np.zeros(count, np.int64), np.ones(count, np.int64)
        self._carries = np.zeros(count)
        """Tokens/s of each node in the best placement: what legs start with."""
        self._leg = self._failures = 0
        self._growth = 1.0

    def offer(self, placement: Placement) -> None:
        """Consider a placement found elsewhere."""
        value = self.flows.of_placement(placement)
        if value <= self.value:
            return
        self.value, self.placement = value, dict(placement)
        self._carries[:] = 0.0
        for name, (start, end) in placement.items():
            node = self.flows.index[name]
            self._starts[node], self._ends[node] = start, end
            self._carries[node] = self._throughput[node, self.flows.columns[start, end]]

    def advance(self, watch: Watch) -> None:
        """One leg, which ends early when the watch is over."""
        from helix_kit.placement.annealing.crossing_moves import Flows, Network, anneal_crossings
        from helix_kit.placement.annealing.moves import Nodes, Ranges, Schedule

        if not len(self._free) or self.value <= 0:
            return
        flows, num_layers = self.flows, self.task.problem.num_layers
        target = self.value * (1 + RISE)
        hot = HEATS[self._leg % len(HEATS)] * target
        chunks = STEPS_PER_NODE * self._growth * len(flows.names) / CHUNK
        # Cooling down in the time that is left finds more than a leg that is cut short.
        chunks = max(1, round(min(chunks, watch.left_s / CHUNK_S)))
        nodes = Nodes(np.ascontiguousarray(self._throughput), self._largest, self._free, flows.columns)
        network = Network(self._region, self._link)
        now, met = (Ranges(self._starts.copy(), self._ends.copy()) for _ in range(2))
        carried = Flows(np.minimum(self._carries, target), self._carries.copy())
        temperatures = hot * (COLD * target / hot) ** (np.arange(chunks + 1) / chunks)
        least, best, best_carried = np.inf, met.copy(), carried.best.copy()
        for chunk in range(chunks):
            if watch.is_over():
                break
            watch.spend(CHUNK_S)
            seed = self.task.options.seed * 7919 + self._leg * 1013 + chunk
            schedule = Schedule(float(temperatures[chunk]), float(temperatures[chunk + 1]), CHUNK, seed)
            missed = anneal_crossings(nodes, network, now, met, carried, num_layers, target, schedule)
            if missed < least:
                least, best, best_carried = missed, met.copy(), carried.best.copy()
            if missed <= 1e-6 * target:
                break
        self._leg += 1
        self._take(best.starts, best.ends, best_carried)

    def _take(self, starts: Integers, ends: Integers, carried: NDArray[np.float64]) -> None:
        """Keep what a leg found, if its maximum flow is the best."""
        problem = self.task.problem
        placement = {
            n: (int(s), int(e))
            for n, s, e, tokens in zip(self.flows.names, starts, ends, carried)
            if n in self.pins or (tokens > 0 and (problem.is_uniform or problem.fits(n, int(s), int(e))))
        }
        value = self.flows.of_placement(placement)
        if value > self.value:
            self.value, self.placement = value, placement
            self._starts, self._ends, self._carries = starts, ends, carried
            self._failures = 0
            self.task.watch.report(value=value, message="annealing over regions", placement=placement)
            return
        self._failures += 1
        if self._failures % len(HEATS) == 0:
            self._growth = min(MAX_GROWTH, self._growth * GROWTH)


def _median_links(links: NDArray[np.float64], region: Integers, count: int) -> NDArray[np.float64]:
    """Tokens/s of the median link from each region to each, shape (regions, regions); 0 where there is none."""
    median = np.zeros((count, count))
    for r in range(count):
        for q in range(count):
            senders, receivers = np.flatnonzero(region == r), np.flatnonzero(region == q)
            between = links[np.ix_(senders, receivers)]
            usable = between[senders[:, None] != receivers[None, :]]
            median[r, q] = float(np.median(usable)) if len(usable) else 0.0
    return median


__all__ = ["CrossingAnnealing"]
