"""Random scheduling: each live link alike, and the same choices for the same seed."""

from __future__ import annotations

from collections import Counter

from cluster_views import OpenView, equal_requests

from helix_kit.scheduling import make_policy


def routes(plan, seed):
    policy = make_policy("random", plan, seed=seed)
    return [policy.route(request, OpenView()) for request in equal_requests(300)]


def test_the_same_seed_gives_the_same_choices(plan):
    assert routes(plan, 7) == routes(plan, 7)
    assert routes(plan, 7) != routes(plan, 8)


def test_every_first_node_gets_its_third(plan):
    used = Counter(pipeline[0].node for pipeline in routes(plan, 7))
    assert sorted(used) == sorted(node for node, (start, _) in plan.placement.items() if start == 0)
    assert all(70 < count < 130 for count in used.values())
