"""Shortest queue: the node with the fewest waiting requests gets the next one, ties at random."""

from __future__ import annotations

from collections import Counter

import pytest
from cluster_views import OpenView, equal_requests

from helix_kit.scheduling import make_policy


@pytest.fixture
def firsts(plan):
    """Nodes that hold the first layer."""
    return [node for node, (start, _) in plan.placement.items() if start == 0]


def test_the_shortest_queue_gets_every_request(plan, firsts):
    crowded = OpenView(queues=dict.fromkeys(firsts[1:], 5))
    shortest = make_policy("shortest_queue", plan)
    assert {shortest.route(r, crowded)[0].node for r in equal_requests(20)} == {firsts[0]}


def test_equally_short_queues_share_the_requests(plan, firsts):
    shortest = make_policy("shortest_queue", plan, seed=3)
    used = Counter(shortest.route(r, OpenView())[0].node for r in equal_requests(300))
    assert set(used) == set(firsts)
    assert min(used.values()) > 60  # three nodes: 100 each on average
