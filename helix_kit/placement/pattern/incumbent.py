"""The best placement so far, with the links that requests may take under a cap on depth."""

from __future__ import annotations

import time
from collections.abc import Mapping

from helix_kit.flow import Edge, Placement
from helix_kit.flow.arrays import ArrayFlows
from helix_kit.placement.method import Task
from helix_kit.placement.pattern.depth import flow_within
from helix_kit.placement.pattern.mixed_regions import array_flows
from helix_kit.placement.pattern.starts import start_placements

RESERVE = 1.3
"""The time that is set aside for the last flow, as a multiple of what it took at first."""
MANY_NODES = 100
"""With more nodes the last flow of a plan takes long enough to be planned for."""


class Incumbent:
    """The best placement of a task, by its exact maximum flow.

    Parameters
    ----------
    task
        Problem and options; better values are reported to its watch.

    Examples
    --------
    >>> from helix_kit.cluster import Cluster
    >>> from helix_kit.model import Model
    >>> from helix_kit.placement.groups import groups_of
    >>> from helix_kit.placement.problem import Problem
    >>> from helix_kit.placement.watch import Watch
    >>> cluster = Cluster.model_validate({"name": "six", "nodes": [{"gpu": "L4", "count": 6}]})
    >>> problem = Problem.of(cluster, Model.preset("llama-30b"))
    >>> best = Incumbent(Task(problem, Watch(10.0), groups_of(problem)))
    >>> best.start({})
    >>> round(best.value, 1)
    222.1
    """

    def __init__(self, task: Task) -> None:
        self.task = task
        self.placement: Placement = {}
        self.links: set[Edge] | None = None
        self.value = 0.0
        """Tokens/s of the maximum flow."""
        self.improved_s = 0.0
        """Seconds on the task's watch when it was found."""
        nodes = [n for g in task.groups for n in g.nodes]
        self.flows: ArrayFlows | None = (
            array_flows(task.problem, nodes, task.options.partial_inference) if nodes else None
        )
        """Flows of all nodes that can hold a layer."""

    def start(self, pins: Mapping[str, tuple[int, int]]) -> None:
        """Consider the placements that need no search, with the pinned nodes where their pins say."""
        task, watch = self.task, self.task.watch
        found = start_placements(task.problem, task.groups, task.options.seed, self.value_of, watch.is_over)
        for placement in found:
            self.consider({**placement, **pins})
            if self.value > 0 and watch.stopped():
                return

    def value_of(self, placement: Placement) -> float:
        """Tokens/s of a placement over all links."""
        return 0.0 if self.flows is None else self.flows.of_placement(placement)

    def consider(self, placement: Placement, value: float | None = None) -> float:
        """Keep the placement if it is the best; returns its tokens/s, within the cap on depth if there is one."""
        cap = self.task.options.max_stages
        links: set[Edge] | None = None
        if cap is not None:
            flow, links = flow_within(self.task, placement, cap, self.task.options.flow_split)
            # Only pins may make ways deeper than the cap: another placement keeps to it over all its links.
            is_within = flow is not None and (links is None or bool(self.task.options.pins))
            value = flow.tokens_per_s if flow is not None and is_within else 0.0
        elif value is None:
            value = self.value_of(placement)
        if value > self.value:
            self.placement, self.links, self.value = dict(placement), links, value
            self.improved_s = self.task.watch.seconds
            self.task.watch.report(value=value, message="a better placement", placement=self.placement)
        return value

    def final_flow_s(self) -> float:
        """Seconds to set aside for the plan's own flow, measured on this placement where there are many nodes."""
        if len(self.placement) <= MANY_NODES or self.task.watch.is_counted:
            return 0.0
        begun = time.perf_counter()
        self.task.max_flow(self.placement, self.links, self.task.options.flow_split)
        return RESERVE * (time.perf_counter() - begun)


__all__ = ["Incumbent"]
