"""Swarm: links with short hop times get more requests."""

from __future__ import annotations

from collections import Counter

import pytest
from cluster_views import OpenView, equal_requests

from helix_kit.cluster import COORDINATOR
from helix_kit.scheduling import make_policy


@pytest.fixture
def firsts(plan):
    """Nodes that hold the first layer."""
    return [node for node, (start, _) in plan.placement.items() if start == 0]


def test_the_faster_link_gets_the_requests(plan, firsts):
    swarm = make_policy("swarm", plan)
    for name in firsts:
        for _ in range(20):
            swarm.on_hop_time(COORDINATOR, name, 0.01 if name == firsts[0] else 1.0)
    used = Counter(swarm.route(r, OpenView())[0].node for r in equal_requests(100))
    assert used[firsts[0]] > 90


def test_before_any_time_is_measured_links_take_turns(plan, firsts):
    swarm = make_policy("swarm", plan)
    assert [swarm.route(r, OpenView())[0].node for r in equal_requests(6)] == [*firsts, *firsts]


def test_a_new_time_weighs_four_fifths(plan, firsts):
    """0.05 s at first, as published, then 0.8 x 0.1 + 0.2 x 0.05 = 0.09, then 0.8 x 0.2 + 0.2 x 0.09 = 0.178."""
    swarm = make_policy("swarm", plan)
    averages, _ = swarm.hop_averages()
    link = swarm.topology.links.index((COORDINATOR, firsts[1]))
    seen = [averages[link]]
    for seconds in (0.1, 0.2):
        swarm.on_hop_time(COORDINATOR, firsts[1], seconds)
        seen.append(averages[link])
    assert seen == pytest.approx([0.05, 0.09, 0.178])
    assert averages.sum() == pytest.approx(0.178 + 0.05 * (len(averages) - 1))
