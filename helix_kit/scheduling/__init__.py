"""Scheduling: policies that choose the pipeline of each request, and the interface to write your own.

The simulator and the runtime use the same policies.
"""

from __future__ import annotations

from helix_kit.scheduling.failures import PolicyError, named_failures
from helix_kit.scheduling.fixed import FixedRoutes
from helix_kit.scheduling.helix import Helix
from helix_kit.scheduling.kv_budget import PAGE_TOKENS, ExpectedKV, PagedKV
from helix_kit.scheduling.policies import (
    POLICIES,
    POLICY_NAMES,
    PolicyChoice,
    checked_pipeline,
    make_policy,
    policy_name,
    resolve_policy,
)
from helix_kit.scheduling.policy import Policy, Topology, View
from helix_kit.scheduling.prefix import Prefix
from helix_kit.scheduling.random import Random
from helix_kit.scheduling.shortest_queue import ShortestQueue
from helix_kit.scheduling.swarm import Swarm

__all__ = [
    "PAGE_TOKENS",
    "POLICIES",
    "POLICY_NAMES",
    "ExpectedKV",
    "FixedRoutes",
    "Helix",
    "PagedKV",
    "Policy",
    "PolicyChoice",
    "PolicyError",
    "Prefix",
    "Random",
    "ShortestQueue",
    "Swarm",
    "Topology",
    "View",
    "checked_pipeline",
    "make_policy",
    "named_failures",
    "policy_name",
    "resolve_policy",
]
