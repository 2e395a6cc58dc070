"""What decides the pipeline of a request: the interface that the simulator and the runtime share.

A policy knows the routes of a plan (`Topology`), may look at the cluster as it is (`View`), and answers with a
pipeline, or None when no node has room now. Policies are plain Python objects: write your own by
subclassing `Policy`.

>>> from helix_kit.scheduling.policy import Policy
>>> class Always(Policy):
...     def __init__(self, pipeline):
...         self.pipeline = pipeline
...     def route(self, request, view):
...         return self.pipeline
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal, Protocol

from helix_kit.cluster import COORDINATOR
from helix_kit.flow import Edge, Pipeline, can_follow
from helix_kit.placement.plan import Plan
from helix_kit.workload.request import Request

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Topology:
    """What a policy knows of a plan: ranges, links with their share of the flow, KV capacity of each node."""

    num_layers: int
    placement: Mapping[str, tuple[int, int]]
    next_hops: Mapping[str, tuple[tuple[str, float], ...]]
    """Node or coordinator -> (next node or coordinator, flow in tokens/s), in link order."""
    kv_capacity_layer_tokens: Mapping[str, int]

    @classmethod
    def of(
        cls,
        plan: Plan,
        *,
        links: Literal["flow", "all"] | Iterable[Edge] = "flow",
        kv_capacity: Mapping[str, int] | None = None,
    ) -> Topology:
        """The topology of a plan.

        `links` are those that carry flow, all between ranges that fit, or a list in the order that decides
        ties; `kv_capacity` overrides the profile's KV capacity (layer-tokens) of the nodes it names.
        """
        flow = plan.flow_edges
        if links == "flow":
            edges: Iterable[Edge] = flow
        elif links == "all":
            edges = valid_links(plan)
        else:
            edges = links
        hops: dict[str, list[tuple[str, float]]] = {name: [] for name in [COORDINATOR, *plan.placement]}
        for source, target in edges:
            hops[source].append((target, flow.get((source, target), 0.0)))
        problem = plan.problem
        kv = {
            name: problem.profiles[problem.kind_of[name]].kv_capacity(end - start)
            for name, (start, end) in plan.placement.items()
        }
        kv.update(kv_capacity or {})
        return cls(plan.model.num_layers, plan.placement, {n: tuple(h) for n, h in hops.items()}, kv)

    @cached_property
    def links(self) -> tuple[Edge, ...]:
        """All links, grouped by sender, in the order of `next_hops`."""
        return tuple((source, target) for source, hops in self.next_hops.items() for target, _ in hops)

    @cached_property
    def held_by(self) -> tuple[tuple[str, ...], ...]:
        """For each layer, the nodes that hold it."""
        return tuple(
            tuple(n for n, (start, end) in self.placement.items() if start <= layer < end)
            for layer in range(self.num_layers)
        )


def valid_links(plan: Plan) -> list[Edge]:
    """Every link that a request may take under the plan's placement, in cluster order of sender, then receiver."""
    spans = plan.placement
    edges = [(COORDINATOR, name) for name, span in spans.items() if span[0] == 0]
    for name, (_, end) in spans.items():
        edges += [(name, t) for t, span in spans.items() if t != name and can_follow(end, span, plan.partial_inference)]
        if end == plan.model.num_layers:
            edges.append((name, COORDINATOR))
    return edges


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

    def has_room(self, node: str, tokens: int, num_layers: int) -> bool:
        """Whether the node's free KV pages hold `tokens` of context in `num_layers` layers."""
        ...


class Policy:
    """Base of all policies: override `route`; the other hooks are optional.

    The caller (simulator or coordinator) reserves the KV pages of the pipeline returned; if they are not
    free it asks again later, as it does after None.
    """

    name = "policy"

    def route(self, request: Request, view: View) -> Pipeline | None:
        """The pipeline that `request` takes, or None when no node has room now; called once per attempt."""
        raise NotImplementedError

    def on_admitted(self, request: Request, pipeline: Pipeline) -> None:
        """`request` starts on `pipeline`: set aside what it will need."""

    def on_refused(self, request: Request, pipeline: Pipeline) -> None:
        """The pipeline returned by `route` was not taken, for want of KV pages: undo what `route` counted."""

    def on_finished(self, request: Request) -> None:
        """`request` has left (finished, cancelled or failed): give back what was set aside for it."""

    def on_token(self, request: Request) -> None:
        """One decode step of `request` was started along its pipeline; told at the latest before the next `route`."""

    def on_hop_time(self, source: str, target: str, seconds: float) -> None:
        """A request took `seconds` from the start of its transfer source -> target until it left the target."""

    def token_loads(self) -> tuple[np.ndarray, np.ndarray] | None:
        """(load, flow) of each link in the topology's order, shape (links,), or None.

        A policy that only adds 1/flow to the load of each link of a decode's pipeline in `on_token` may hand
        out its arrays: the simulator then does that itself, in compiled code, and does not call `on_token`.
        """
        return None
