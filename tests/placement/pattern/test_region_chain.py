"""The search on one set of regions: the links that it plans with."""

import pytest

import helix_kit as hk
from helix_kit.placement import Problem
from helix_kit.placement.groups import groups_of
from helix_kit.placement.pattern.region_chain import crossing_capacities, inner_link_capacity


def test_slow_links_within_a_region_are_planned_for():
    """Links carry 763 tokens/s, so stages of a single node pass no more: a plan made for fast links loses much here."""
    nodes = [{"gpu": "L4", "count": 24}]
    slow = hk.Cluster.model_validate(
        {"name": "slow", "nodes": nodes, "network": {"within_region": {"bandwidth_gbps": 0.02}}}
    )
    fast = hk.Cluster.model_validate({"name": "fast", "nodes": nodes})
    careless = hk.plan(fast, "llama2-70b", time_limit_s=1, deterministic=True)
    plan = hk.plan(slow, "llama2-70b", time_limit_s=1, deterministic=True)
    assert plan.flow_tokens_per_s > 1.5 * plan.problem.max_flow(careless.placement).tokens_per_s


def test_capacities_of_links_by_hand():
    """1 Gbit/s between regions but for one link of 4; within them 10 but for one of 2. A token takes 16386 bytes."""
    nodes = [{"gpu": "L4", "count": 2, "region": r} for r in ("east", "west")]
    links = [
        {"source": "L4-0", "target": "L4-2", "bandwidth_gbps": 4},
        {"source": "L4-2", "target": "L4-3", "bandwidth_gbps": 2},
    ]
    network = {"within_region": {"bandwidth_gbps": 10}, "between_regions": {"bandwidth_gbps": 1}, "links": links}
    cluster = hk.Cluster.model_validate(
        {
            "name": "hand",
            "throughput": "published",
            "coordinator": {"region": "east"},
            "nodes": nodes,
            "network": network,
        }
    )
    problem = Problem.of(cluster, hk.Model.preset("llama2-70b").model_copy(update={"num_layers": 8}))
    groups = groups_of(problem)
    gbps = 1e9 / 8 / 16386
    assert crossing_capacities(problem, groups) == pytest.approx([4 * gbps, gbps], abs=1e-3)
    assert inner_link_capacity(problem, groups) == pytest.approx(2 * gbps)
    east = [g for g in groups if g.region == "east"]
    assert crossing_capacities(problem, east) == [float("inf")]
    assert inner_link_capacity(problem, east) == pytest.approx(10 * gbps)
