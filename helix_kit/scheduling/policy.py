"""What decides the pipeline of a request: the interface that the simulator and the runtime share.

A policy knows the routes of a plan (`Topology`), may look at the cluster as it is (`View`), and answers with a
pipeline, or None when no node has room now. Policies are plain Python objects: write your own by
subclassing `Policy`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from helix_kit.cluster import COORDINATOR
from helix_kit.flow import Pipeline
from helix_kit.placement.plan import Plan
from helix_kit.workload.request import Request


@dataclass(frozen=True)
class Topology:
    """What a policy knows of a plan: ranges, links with their share of the flow, KV capacity of each node."""

    num_layers: int
    placement: Mapping[str, tuple[int, int]]
    next_hops: Mapping[str, tuple[tuple[str, float], ...]]
    """Node or coordinator -> (next node or coordinator, flow in tokens/s), in link order."""
    kv_capacity_layer_tokens: Mapping[str, int]

    @classmethod
    def of(cls, plan: Plan) -> Topology:
        """The topology of a plan: the links that carry flow."""
        hops: dict[str, list[tuple[str, float]]] = {name: [] for name in [COORDINATOR, *plan.placement]}
        for source, target, rate in plan.flow:
            hops[source].append((target, rate))
        problem = plan.problem
        kv = {
            name: problem.profiles[problem.kind_of[name]].kv_capacity(end - start)
            for name, (start, end) in plan.placement.items()
        }
        return cls(plan.model.num_layers, plan.placement, {n: tuple(h) for n, h in hops.items()}, kv)


class View(Protocol):
    """The cluster as it is now, as far as the coordinator can know it."""

    def is_alive(self, node: str) -> bool:
        """Whether the node serves requests."""
        ...

    def queue_length(self, node: str) -> int:
        """Requests that wait in front of the node's first layer."""
        ...

    def now_s(self) -> float:
        """Seconds on the run's clock."""
        ...


class Policy:
    """Base of all policies: override `route`; the other hooks are optional."""

    name = "policy"

    def route(self, request: Request, view: View) -> Pipeline | None:
        """The pipeline that `request` takes, or None when no node has room now; called once per attempt."""
        raise NotImplementedError

    def on_finished(self, request: Request) -> None:
        """`request` has left (finished, cancelled or failed): give back what was set aside for it."""

    def on_token(self, request: Request) -> None:
        """One decode step of `request` was started along its pipeline."""
