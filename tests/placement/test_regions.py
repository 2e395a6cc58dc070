"""Plans over several regions with thin links between them."""

import pytest

import helix_kit as hk
from helix_kit.placement import bounds
from helix_kit.placement.groups import groups_of

from .test_plan_targets import independent_flow


def test_geo24_70b_is_proven_to_a_tenth_of_a_percent():
    plan = hk.plan("geo24", "llama2-70b", time_limit=60)
    assert plan.flow_tokens_per_s >= 1754
    assert plan.gap <= 1e-3
    assert plan.bounds["B4"] < 0.9 * plan.bounds["B2"]
    assert independent_flow(plan) == pytest.approx(plan.flow_tokens_per_s, rel=1e-6)


@pytest.mark.slow
def test_geo24_70b_with_glpk():
    plan = hk.plan("geo24", "llama2-70b", solver="glpk", time_limit=60)
    assert plan.flow_tokens_per_s >= 1754
    assert plan.gap <= 1e-3


@pytest.mark.slow
def test_geo24_30b():
    plan = hk.plan("geo24", "llama-30b", time_limit=60)
    assert plan.flow_tokens_per_s >= 1399
    assert independent_flow(plan) == pytest.approx(plan.flow_tokens_per_s, rel=1e-6)


def two_regions(gbps, count=4):
    nodes = [{"gpu": "A100-40G", "count": count, "region": r} for r in ("east", "west")]
    network = {"within_region": {"bandwidth_gbps": 10}, "between_regions": {"bandwidth_gbps": gbps}}
    return hk.Cluster.model_validate({"name": "two", "nodes": nodes, "network": network})


def test_wider_links_never_hurt_and_thin_ones_bind():
    values = [hk.plan(two_regions(g), "llama2-70b").flow_tokens_per_s for g in (0.001, 0.05, 10)]
    assert values == sorted(values)
    assert values[0] < 0.3 * values[-1]


def test_regions_serve_side_by_side_where_links_carry_nothing():
    plan = hk.plan(two_regions(1e-4, count=8), "llama2-70b")
    alone = hk.plan(plan.cluster.subset([n.name for n in plan.cluster.nodes if n.region == "east"]), "llama2-70b",
                    profiles=plan.profiles)  # fmt: skip
    assert {plan.cluster.region_of(n) for n in plan.placement} == {"east", "west"}
    assert plan.flow_tokens_per_s >= 1.9 * alone.flow_tokens_per_s


def test_b4_is_above_every_plan_found():
    for gbps in (0.02, 0.1):
        plan = hk.plan(two_regions(gbps), "llama2-70b", time_limit=4)
        groups = groups_of(plan.problem)
        high = bounds.b1(groups, 80)
        found = bounds.b4(groups, 80, low=0.0, high=high, widest_crossing=bounds.widest_crossing(plan.problem, groups))
        assert plan.flow_tokens_per_s <= found * (1 + 1e-9) <= high * (1 + 1e-9)


def test_slow_links_within_a_region_are_planned_for():
    """Links of 763 tokens/s: whoever plans single-node stages cannot pass more than that."""
    nodes = [{"gpu": "L4", "count": 24}]
    slow = hk.Cluster.model_validate(
        {"name": "slow", "nodes": nodes, "network": {"within_region": {"bandwidth_gbps": 0.02}}}
    )
    fast = hk.Cluster.model_validate({"name": "fast", "nodes": nodes})
    careless = hk.plan(fast, "llama2-70b")
    plan = hk.plan(slow, "llama2-70b", time_limit=6)
    assert plan.flow_tokens_per_s > 1.5 * plan.problem.max_flow(careless.placement).tokens_per_s
