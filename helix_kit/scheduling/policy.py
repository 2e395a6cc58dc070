"""The interface of scheduling policies, which choose the pipeline of each request.

A policy knows the nodes and links of a plan (`Topology`) and may ask for the present state of the cluster (`View`). It
answers with a pipeline, or with None when the request has to wait. The simulator and the runtime use the same
policies. To write your own, subclass `Policy` and define `route`; `make_policy` says what a constructor may take.

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

from helix_kit._summary import Summarised
from helix_kit.cluster import COORDINATOR, UNCONNECTED_GBPS
from helix_kit.flow import Edge, Pipeline, can_follow
from helix_kit.placement.plan import Plan
from helix_kit.workload.request import Request

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, repr=False)
class Topology(Summarised):
    """What a policy knows of a plan.

    Examples
    --------
    >>> from helix_kit.scheduling import Topology
    >>> topology = Topology(2, {"a": (0, 2), "b": (0, 2)},
    ...                     {"coordinator": (("a", 3.0), ("b", 1.0)), "a": (("coordinator", 3.0),),
    ...                      "b": (("coordinator", 1.0),)}, {"a": 4000, "b": 4000})
    >>> topology.links[:2]
    (('coordinator', 'a'), ('coordinator', 'b'))
    """

    num_layers: int
    """Layers of the model."""
    placement: Mapping[str, tuple[int, int]]
    """Node -> layer range [start, end)."""
    next_hops: Mapping[str, tuple[tuple[str, float], ...]]
    """Node or coordinator -> (next node or coordinator, flow in tokens/s), in link order."""
    kv_capacity_layer_tokens: Mapping[str, int]
    """Node -> tokens of KV cache, summed over its layers."""

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
            name: problem.profile_of(name, start, end).kv_capacity(end - start)
            for name, (start, end) in plan.placement.items()
        }
        kv.update(kv_capacity or {})
        return cls(plan.model.num_layers, plan.placement, {n: tuple(h) for n, h in hops.items()}, kv)

    def _title(self) -> str:
        return ""

    def _facts(self) -> dict[str, str]:
        facts = {"layers": self.num_layers, "nodes": len(self.placement), "links": len(self.links)}
        return {name: str(count) for name, count in facts.items()}

    @cached_property
    def links(self) -> tuple[Edge, ...]:
        """All links, grouped by sender, in the order of `next_hops`."""
        return tuple((source, target) for source, hops in self.next_hops.items() for target, _ in hops)


def valid_links(plan: Plan) -> list[Edge]:
    """All links between layer ranges that follow each other, in cluster order of sender, then of receiver.

    Links that the cluster says are not there are left out.
    """
    spans = plan.placement
    edges = [(COORDINATOR, name) for name, span in spans.items() if span[0] == 0]
    for name, (_, end) in spans.items():
        edges += [(name, t) for t, span in spans.items() if t != name and can_follow(end, span, plan.partial_inference)]
        if end == plan.model.num_layers:
            edges.append((name, COORDINATOR))
    cluster = plan.cluster
    if any(link.bandwidth_gbps <= UNCONNECTED_GBPS for link in cluster.network.links):
        edges = [edge for edge in edges if cluster.link(*edge).bandwidth_gbps > UNCONNECTED_GBPS]
    return edges


class View(Protocol):
    """The present state of the cluster, as far as the coordinator knows it."""

    def is_alive(self, node: str) -> bool:
        """Whether the node serves requests."""
        ...

    def queue_length(self, node: str) -> int:
        """Number of requests that wait at the node."""
        ...

    def now_s(self) -> float:
        """Seconds on the run's clock."""
        ...

    def has_room(self, node: str, tokens: int, num_layers: int) -> bool:
        """Whether the node's free KV pages hold `tokens` of context in `num_layers` layers.

        Where the node's prefix cache holds the beginning of the request that is being routed, these pages count as
        the request's already.
        """
        ...

    def cached_tokens(self, request: Request, pipeline: Pipeline) -> int:
        """Tokens of the prompt of `request`, which is being routed, that every stage of the pipeline has in its cache.

        0 where prefixes are not cached.
        """
        ...


class Policy:
    """Base of all policies. Subclasses define `route`; the other methods are optional.

    The caller, which is the simulator or the coordinator, reserves the KV pages of the pipeline that `route` returns.
    If they are not free, it calls `on_refused` and asks again later, as it does after None.

    Examples
    --------
    >>> from helix_kit.flow import Stage
    >>> class OnlyA(Policy):
    ...     def route(self, request, view):
    ...         return (Stage("a", 0, 2),) if view.is_alive("a") else None
    >>> OnlyA().name
    'policy'
    """

    name = "policy"
    """Shown in results; a class that keeps this one is shown by its class's name."""
    topology_links: Literal["flow", "all"] = "flow"
    """Links of the `topology` that the constructor gets: those with flow, or all between ranges that fit."""
    topology: Topology | None = None
    """The plan as the policy knows it; needed by policies that hand out `token_loads` or `hop_averages`."""

    def route(self, request: Request, view: View) -> Pipeline | None:
        """The pipeline of `request`, or None when it has to wait. Called once for each attempt."""
        raise NotImplementedError

    def on_admitted(self, request: Request, pipeline: Pipeline) -> None:
        """`request` starts on `pipeline`."""

    def on_refused(self, request: Request, pipeline: Pipeline) -> None:
        """The KV pages of the returned pipeline are not free: undo what `route` counted."""

    def on_finished(self, request: Request) -> None:
        """`request` has ended, or has lost a node and will be routed again: release what it reserved."""

    def on_token(self, request: Request) -> None:
        """A decode step of `request` has started. Called at the latest before the next `route`."""

    def on_hop_time(self, source: str, target: str, seconds: float) -> None:
        """A request took `seconds` from the start of its transfer to `target` until it left `target`."""

    def token_loads(self) -> tuple[np.ndarray, np.ndarray] | None:
        """(load, flow) of each link in the topology's order, shape (links,), or None.

        If `on_token` of a policy only adds 1/flow to the load of each link of the request's pipeline, the policy may
        return its arrays: the simulator then adds in compiled code and does not call `on_token`.
        """
        return None

    def hop_averages(self) -> tuple[np.ndarray, float] | None:
        """(moving average of the hop time in s of each link in the topology's order, weight of a new time), or None.

        A policy that only averages hop times in `on_hop_time` may hand out its array: the simulator then averages in
        compiled code. It calls `on_hop_time` of no policy.
        """
        return None
