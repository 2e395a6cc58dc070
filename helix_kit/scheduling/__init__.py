"""Which pipeline a request takes: Helix's scheduler, the baselines, and the interface to write your own.

The simulator and the runtime use the same policies; this room imports neither.
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
    """The policy called `name` for a plan; a `Policy` object is returned as it is.

    Helix and fixed routes use the plan's flow, the baselines every link between ranges that fit unless `links`
    says otherwise. `options` go to the policy's constructor. Raises InputError for an unknown name.
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
    chosen = Random if key == "random" else ShortestQueue
    return chosen(topology, seed=seed, **options)


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
