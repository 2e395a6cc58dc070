"""Fixed routes: pipelines are taken in proportion to their throughput; dead and full ones are skipped."""

from __future__ import annotations

from collections import Counter

from cluster_views import OpenView, equal_requests

from helix_kit.flow import Stage
from helix_kit.scheduling import FixedRoutes

FAST, SLOW, IDLE = (Stage("a", 0, 2),), (Stage("b", 0, 1), Stage("c", 1, 2)), (Stage("d", 0, 2),)
PIPELINES = [(FAST, 3.0), (SLOW, 1.0), (IDLE, 0.0)]


def taken(policy, view, count=40):
    return Counter(policy.route(request, view) for request in equal_requests(count))


def test_pipelines_are_taken_in_proportion_and_those_without_flow_never():
    assert taken(FixedRoutes(PIPELINES), OpenView()) == {FAST: 30, SLOW: 10}


def test_a_pipeline_with_a_dead_node_is_skipped():
    assert taken(FixedRoutes(PIPELINES), OpenView(dead=["c"])) == {FAST: 40}
    assert taken(FixedRoutes(PIPELINES), OpenView(dead=["a", "b"])) == {None: 40}


def test_a_pipeline_with_a_full_node_is_skipped():
    class Full(OpenView):
        def has_room(self, node, tokens, num_layers):
            return (node, tokens, num_layers) != ("a", 110, 2)

    assert taken(FixedRoutes(PIPELINES), Full()) == {SLOW: 40}


def test_a_refused_request_counts_for_nothing():
    policy = FixedRoutes(PIPELINES)
    for request in equal_requests(4):
        policy.on_refused(request, policy.route(request, OpenView()))
    assert taken(policy, OpenView()) == {FAST: 30, SLOW: 10}


def test_decode_tokens_count_until_the_request_is_finished():
    """Prompt and tokens make 700; seven prompts of 100 make the same on the other pipeline, then the first is next."""
    policy = FixedRoutes([(FAST, 1.0), (SLOW, 1.0)])
    first, *others = equal_requests(9)
    assert policy.route(first, OpenView()) == FAST
    for _ in range(600):
        policy.on_token(first)
    policy.on_finished(first)
    policy.on_token(first)
    assert [policy.route(request, OpenView()) for request in others] == [SLOW] * 7 + [FAST]
