"""Helix's policy: shares follow the flow, and what is counted is given back."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from cluster_views import OpenView, equal_requests

from helix_kit.scheduling import make_policy


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
