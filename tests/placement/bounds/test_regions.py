"""Bound B5: what crosses between regions, by hand, and plans that it bounds."""

import pytest

import helix_kit as hk
from helix_kit.placement import Problem, bounds
from helix_kit.placement.bounds.regions import fastest_crossing, max_crossing
from helix_kit.placement.groups import groups_of

TOKEN_GBIT = 16386 * 8 / 1e9
"""Bits of a token with its activations of llama2-70b, in 10^9: a bandwidth of so many Gbit/s is a token/s."""


def test_thin_links_bound_the_plan():
    """Each region serves alone, and next to nothing crosses: B5 knows it, bounds without the network do not."""
    nodes = [{"gpu": "A100-40G", "count": 8, "region": r} for r in ("east", "west")]
    network = {"within_region": {"bandwidth_gbps": 10}, "between_regions": {"bandwidth_gbps": 1e-4}}
    cluster = hk.Cluster.model_validate({"name": "two", "throughput": "published", "nodes": nodes, "network": network})
    plan = hk.plan(cluster, "llama2-70b", time_limit_s=1, deterministic=True)
    assert plan.gap <= 0.01
    assert plan.bounds["B5"] < 0.8 * plan.bounds["B2"]


def test_crossing_by_hand():
    """Two nodes east, twenty west: links carry 1 token/s, but three (10, 5 back; 40 back)."""
    nodes = [{"gpu": "A100-40G", "count": 2, "region": "east"}, {"gpu": "L4", "count": 20, "region": "west"}]
    links = [
        {"source": a, "target": b, "bandwidth_gbps": t * TOKEN_GBIT}
        for a, b, t in [("A100-40G-0", "L4-0", 10), ("L4-0", "A100-40G-0", 5), ("L4-0", "A100-40G-1", 40)]
    ]
    network = {
        "within_region": {"bandwidth_gbps": 10},
        "between_regions": {"bandwidth_gbps": TOKEN_GBIT},
        "links": links,
    }
    cluster = hk.Cluster.model_validate(
        {
            "name": "hand",
            "throughput": "published",
            "coordinator": {"region": "east"},
            "nodes": nodes,
            "network": network,
        }
    )
    problem = Problem.of(cluster, hk.Model.preset("llama2-70b"))
    # The faster direction of each pair; by senders it is 10 + 19 + 20 + 45 + 38, by receivers 24 + 59 + 11 + 1 + 38.
    assert max_crossing(problem, groups_of(problem)) == pytest.approx(10 + 40 + 38)
    assert fastest_crossing(problem, groups_of(problem)) == pytest.approx(40)


@pytest.mark.parametrize("outward", [True, False])
def test_crossing_is_what_the_only_node_of_a_region_processes(outward):
    """One node east: 20 wide links leave it (senders are least) or reach it (receivers), 1 token/s the other way."""
    nodes = [{"gpu": "T4", "count": 1, "region": "east"}, {"gpu": "L4", "count": 20, "region": "west"}]
    ends = [("T4-0", f"L4-{i}") if outward else (f"L4-{i}", "T4-0") for i in range(20)]
    links = [{"source": a, "target": b, "bandwidth_gbps": 5000 * TOKEN_GBIT} for a, b in ends]
    network = {
        "within_region": {"bandwidth_gbps": 10},
        "between_regions": {"bandwidth_gbps": TOKEN_GBIT},
        "links": links,
    }
    cluster = hk.Cluster.model_validate(
        {
            "name": "hand",
            "throughput": "published",
            "coordinator": {"region": "east"},
            "nodes": nodes,
            "network": network,
        }
    )
    problem = Problem.of(cluster, hk.Model.preset("llama2-70b"))
    one = problem.throughput("T4-0", 1)
    # The other two sums: 20 x 5000 over pairs; and 20 + 20 L4 that process 5000 or more than one T4 does.
    assert one + 20 < 20 + 20 * min(problem.throughput("L4-0", 1), 5000)
    assert max_crossing(problem, groups_of(problem)) == pytest.approx(one + 20)


def test_told_to_stop_it_gives_what_is_known():
    problem = Problem.of(hk.Cluster.preset("geo24"), hk.Model.preset("llama-30b"))
    assert bounds.region_bound(problem, groups_of(problem), high=1234.5, should_stop=lambda: True) == 1234.5
