"""Plans over several regions with thin links between them."""

import numpy as np
import pytest
from independent_flow import independent_flow

import helix_kit as hk
from helix_kit.experiments.figures.common.synthetic import synthetic_cluster
from helix_kit.placement.groups import groups_of
from helix_kit.placement.method import Task
from helix_kit.placement.pattern.mixed_regions import array_flows
from helix_kit.placement.pattern.regions import PartitionSearch
from helix_kit.placement.problem import Problem
from helix_kit.placement.watch import Watch


def test_geo24_70b_is_proven_to_a_tenth_of_a_percent():
    plan = hk.plan("geo24", "llama2-70b", time_limit_s=60)
    assert plan.flow_tokens_per_s >= 1754
    assert plan.gap <= 1e-3
    assert plan.bounds["B4"] < 0.9 * plan.bounds["B2"]
    assert independent_flow(plan) == pytest.approx(plan.flow_tokens_per_s, rel=1e-6)


@pytest.mark.slow
def test_geo24_70b_with_glpk():
    plan = hk.plan("geo24", "llama2-70b", solver="glpk", time_limit_s=60)
    assert plan.flow_tokens_per_s >= 1754
    assert plan.gap <= 1e-3


def five_regions(nodes):
    """The benchmark's clusters: seven kinds at random, 0.1 Gbit/s between regions."""
    return synthetic_cluster(nodes, regions=5)


@pytest.mark.slow
@pytest.mark.parametrize(("nodes", "least"), [(100, 0.8), (300, 0.95), (1000, 0.80)])
def test_five_regions(nodes, least):
    cluster = five_regions(nodes)
    plan = hk.plan(cluster, "llama2-70b", time_limit_s=120)
    assert plan.flow_tokens_per_s >= least * plan.bound_tokens_per_s
    assert plan.flow_tokens_per_s <= min(plan.bounds.values())
    if nodes < 1000:
        assert independent_flow(plan) == pytest.approx(plan.flow_tokens_per_s, rel=1e-6)
    # A second check by another algorithm on arrays, which is quick for a thousand nodes as well.
    names, spans = list(plan.placement), np.array(list(plan.placement.values()))
    flow = array_flows(plan.problem, names, True).tokens_per_s(np.arange(len(names)), *spans.T)
    assert flow == pytest.approx(plan.flow_tokens_per_s, rel=1e-6)


def two_regions(gbps, count=4):
    nodes = [{"gpu": "A100-40G", "count": count, "region": r} for r in ("east", "west")]
    network = {"within_region": {"bandwidth_gbps": 10}, "between_regions": {"bandwidth_gbps": gbps}}
    return hk.Cluster.model_validate({"name": "two", "throughput": "published", "nodes": nodes, "network": network})


def test_wider_links_never_hurt_and_thin_ones_bind():
    values = [
        hk.plan(two_regions(g), "llama2-70b", time_limit_s=1, deterministic=True).flow_tokens_per_s
        for g in (0.001, 0.05, 10)
    ]
    assert values == sorted(values)
    assert values[0] < 0.3 * values[-1]


def test_regions_serve_side_by_side_where_links_carry_nothing():
    plan = hk.plan(two_regions(1e-4, count=8), "llama2-70b", time_limit_s=1, deterministic=True)
    alone = hk.plan(plan.cluster.subset([n.name for n in plan.cluster.nodes if n.region == "east"]), "llama2-70b",
                    profiles=plan.profiles, time_limit_s=1, deterministic=True)  # fmt: skip
    assert {plan.cluster.region_of(n) for n in plan.placement} == {"east", "west"}
    assert plan.flow_tokens_per_s >= 1.9 * alone.flow_tokens_per_s


def test_sets_are_searched_again_until_none_is_left_and_lose_nothing():
    cluster, model = two_regions(0.2, count=5), hk.Model.preset("llama2-70b").model_copy(update={"num_layers": 24})
    problem = Problem.of(cluster, model)
    search = PartitionSearch(Task(problem, Watch(60.0, counted=True), groups_of(problem)))
    search.advance(Watch(30.0, counted=True), 1e9)
    before, calls = search.value, 0
    while not search.is_exhausted:
        search.search_again(Watch(30.0, counted=True), 1e9)
        calls += 1
    assert 1 <= calls <= 2 * 3, "each of three sets, at most twice"
    assert search.value >= before > 0
    assert problem.holds(search.best.placement)
    assert search.value == pytest.approx(problem.max_flow(search.best.placement).tokens_per_s)
