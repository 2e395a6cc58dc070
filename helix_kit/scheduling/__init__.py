"""Scheduling: policies that choose the pipeline of each request, and the interface to write your own.

The simulator and the runtime use the same policies.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from helix_kit import _files
from helix_kit.errors import InputError
from helix_kit.flow import Edge
from helix_kit.placement.plan import Plan
from helix_kit.scheduling.fixed import FixedRoutes
from helix_kit.scheduling.helix import Helix
from helix_kit.scheduling.kv_budget import PAGE_TOKENS, ExpectedKV, PagedKV
from helix_kit.scheduling.policy import Policy, Topology, View
from helix_kit.scheduling.random import Random
from helix_kit.scheduling.shortest_queue import ShortestQueue
from helix_kit.scheduling.swarm import Swarm

POLICY_NAMES = ("helix", "swarm", "random", "shortest_queue", "fixed")


def make_policy(
    name: str | Policy,
    plan: Plan,
    *,
    seed: int = 0,
    kv_capacity: Mapping[str, int] | None = None,
    links: Iterable[Edge] | None = None,
    **options: Any,
) -> Policy:
    """The policy of a name, for a plan.

    Parameters
    ----------
    name
        helix, swarm, random, shortest_queue or fixed. A `Policy` is returned as it is.
    plan
        The plan whose nodes and links the policy uses.
    seed
        Seed of the random choices.
    kv_capacity
        Node -> layer-tokens, in place of the profile's KV capacity.
    links
        Links that may be used, in the order that decides ties. None: those with flow for helix, and for the baselines
        all links between layer ranges that follow each other.
    options
        Passed to the policy's constructor.

    Returns
    -------
    Policy
        Ready for its first request.

    Raises
    ------
    InputError
        There is no policy of this name.

    Examples
    --------
    >>> from helix_kit import Cluster, Model, Plan, Problem
    >>> cluster = Cluster.model_validate({"name": "pair", "nodes": [{"gpu": "L4", "count": 2}]})
    >>> problem = Problem.of(cluster, Model.preset("SmolLM2-135M"))
    >>> plan = Plan.from_placement(problem, {"L4-0": (0, 30), "L4-1": (0, 30)}, method="hand")
    >>> make_policy("shortest-queue", plan).name
    'shortest_queue'
    """
    if isinstance(name, Policy):
        return name
    key = name.replace("-", "_").lower()
    if key == "fixed":
        return FixedRoutes(plan.pipelines, **options)
    if key == "helix":
        return Helix(Topology.of(plan, links="flow" if links is None else links, kv_capacity=kv_capacity), **options)
    if key not in POLICY_NAMES:
        raise InputError(_files.unknown("policy", name, POLICY_NAMES), field="policy")
    topology = Topology.of(plan, links="all" if links is None else links, kv_capacity=kv_capacity)
    if key == "swarm":
        return Swarm(topology, **options)
    return {"random": Random, "shortest_queue": ShortestQueue}[key](topology, seed=seed, **options)


__all__ = [
    "PAGE_TOKENS",
    "POLICY_NAMES",
    "ExpectedKV",
    "FixedRoutes",
    "Helix",
    "PagedKV",
    "Policy",
    "Random",
    "ShortestQueue",
    "Swarm",
    "Topology",
    "View",
    "make_policy",
]
