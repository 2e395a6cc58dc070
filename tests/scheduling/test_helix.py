"""Helix's policy: shares follow the flow, and what is counted is given back."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from cluster_views import OpenView, equal_requests

from helix_kit.scheduling import Topology, make_policy
from helix_kit.scheduling.helix import Helix


def test_helix_follows_the_flow(plan):
    """Node shares of many equal requests approach the plan's flow shares (independently of the loads' arithmetic)."""
    policy, count = make_policy("helix", plan), 4000
    used = Counter()
    for request in equal_requests(count):
        used.update(stage.node for stage in policy.route(request, OpenView()))
    total = plan.flow_tokens_per_s
    kept = {n: plan.max_flow.through(n) / total for n in plan.placement}
    big = [n for n, share in kept.items() if share > 0.15]
    assert big
    for node in big:
        assert used[node] / count == pytest.approx(kept[node], rel=0.15)


@pytest.mark.parametrize(("kv", "share"), [("pages", 0.03), ("expectation", 0.0)])
def test_a_slow_machine_beside_fast_ones_gets_its_share_but_none_by_the_published_rule(kv, share):
    flows = (("fast", 97.0), ("slow", 3.0))
    back = {node: (("coordinator", flow),) for node, flow in flows}
    topology = Topology(
        2, {"fast": (0, 2), "slow": (0, 2)}, {"coordinator": flows, **back}, {"fast": 10**6, "slow": 10**6}
    )
    policy, count = Helix(topology, kv=kv), 1000
    used = Counter(stage.node for r in equal_requests(count) for stage in policy.route(r, OpenView()))
    assert used["slow"] / count == pytest.approx(share, abs=0.005)


def test_refusing_restores_the_loads(plan):
    policy = make_policy("helix", plan)
    before = policy.token_loads()[0].copy()
    request = equal_requests(1)[0]
    pipeline = policy.route(request, OpenView())
    assert (policy.token_loads()[0] != before).any()
    policy.on_refused(request, pipeline)
    assert policy.token_loads()[0] == pytest.approx(before, abs=1e-12)


def test_a_route_that_fails_half_way_leaves_no_load(plan):
    policy = make_policy("helix", plan)

    class Full(OpenView):
        def has_room(self, node, tokens, num_layers):
            return plan.placement[node][0] == 0

    before = policy.token_loads()[0].copy()
    assert policy.route(equal_requests(1)[0], Full()) is None
    assert policy.token_loads()[0] == pytest.approx(before, abs=1e-12)


def test_tokens_count_one_on_each_link_of_the_pipeline(plan):
    policy = make_policy("helix", plan)
    request = equal_requests(1)[0]
    pipeline = policy.route(request, OpenView())
    loads, flow = policy.token_loads()
    before = loads.copy()
    policy.on_token(request)
    tokens = (loads - before) * flow
    assert tokens.sum() == pytest.approx(len(pipeline) + 1)
    assert set(np.round(tokens, 9)) <= {0.0, 1.0}
