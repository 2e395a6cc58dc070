"""Bound B4: above every plan, and below B2 where regions force a pair."""

import pytest

import helix_kit as hk
from helix_kit.placement import bounds
from helix_kit.placement.groups import Group, groups_of
from helix_kit.placement.watch import Watch


@pytest.mark.parametrize("gbps", [0.02, 0.1])
def test_it_is_above_the_plan_found(gbps):
    nodes = [{"gpu": "A100-40G", "count": 4, "region": r} for r in ("east", "west")]
    network = {"within_region": {"bandwidth_gbps": 10}, "between_regions": {"bandwidth_gbps": gbps}}
    cluster = hk.Cluster.model_validate({"name": "two", "nodes": nodes, "network": network})
    plan = hk.plan(cluster, "llama2-70b", time_limit_s=1, deterministic=True)
    groups = groups_of(plan.problem)
    high, crossing = bounds.spread_bound(groups, 80), bounds.fastest_crossing(plan.problem, groups)
    effort = bounds.ProofEffort(Watch(60.0))
    bound = bounds.pair_bound(groups, 80, low=0.0, high=high, fastest_crossing=crossing, effort=effort)
    assert plan.flow_tokens_per_s <= bound * (1 + 1e-9) <= high * (1 + 1e-9)


def test_one_region_forces_no_pair():
    group = Group("a", "east", ("a0", "a1"), (10.0, 9.0))
    effort = bounds.ProofEffort(Watch(10.0))
    assert bounds.pair_bound([group], 3, low=0.0, high=7.0, fastest_crossing=1.0, effort=effort) == 7.0


def test_two_regions_that_cannot_serve_alone_are_bound_by_their_link():
    """Two nodes of two layers each, for three layers: no layer has a second node unless one node holds one layer less.

    A chain of both crosses a link of 1 token/s; with a layer on both nodes there are four places for four layers.
    """
    groups = [Group("a", region, (f"a-{region}",), (10.0, 9.0)) for region in ("east", "west")]
    effort = bounds.ProofEffort(Watch(10.0))
    four = bounds.pair_bound(groups, 4, low=0.0, high=9.0, fastest_crossing=1.0, effort=effort)
    three = bounds.pair_bound(groups, 3, low=0.0, high=9.0, fastest_crossing=1.0, effort=effort)
    assert four == pytest.approx(1.0, rel=1e-3)
    assert three == pytest.approx(9.0, rel=1e-3)
