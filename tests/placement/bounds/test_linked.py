"""Bound B7 on small random clusters with slow links: equal to the best of all placements."""

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import helix_kit as hk
from helix_kit.placement.bounds import linked_bound
from helix_kit.placement.bounds.linked import interchangeable
from helix_kit.placement.groups import groups_of
from helix_kit.placement.pattern.mixed_regions import array_flows
from helix_kit.placement.problem import Problem
from helix_kit.placement.watch import Watch

GBPS = (0.0005, 0.001, 0.002, 0.004, 10)
"""A token has 16386 bytes, so 0.001 Gbit/s is 7.6 tokens/s."""
SMALL = [(3, 5), (3, 4), (4, 3)]
"""Nodes and layers of clusters of which every placement is tried."""


def draw_cluster(data, size):
    """Cards in one or two regions with links of any speed; some links have a rule of their own."""
    regions = ("east", "west")[: data.draw(st.integers(1, 2))]
    cards = [data.draw(st.sampled_from(("T4", "L4"))) for _ in range(size)]
    nodes = [
        {"name": f"n{i}", "gpu": gpu, "region": data.draw(st.sampled_from(regions))} for i, gpu in enumerate(cards)
    ]
    pairs = list(itertools.permutations(range(size), 2))
    links = [
        {"source": f"n{a}", "target": f"n{b}", "bandwidth_gbps": data.draw(st.sampled_from(GBPS))}
        for a, b in data.draw(st.lists(st.sampled_from(pairs), max_size=3, unique=True))
    ]
    speed = {
        name: {"bandwidth_gbps": data.draw(st.sampled_from(GBPS))} for name in ("within_region", "between_regions")
    }
    return hk.Cluster.model_validate(
        {"name": "small", "coordinator": {"region": "east"}, "nodes": nodes, "network": {**speed, "links": links}}
    )


def draw_problem(data, *, falling):
    """A small problem with tables T(k) of whole tokens/s. If they fall, more layers are never faster."""
    size, layers = data.draw(st.sampled_from(SMALL))
    model = hk.Model.preset("llama2-70b").model_copy(update={"num_layers": layers})
    base = Problem.of(draw_cluster(data, size), model)
    tables = {}
    for kind in base.throughput_by_kind:
        table = data.draw(st.lists(st.integers(1, 40), min_size=1, max_size=layers))
        tables[kind] = tuple(float(t) for t in (sorted(table, reverse=True) if falling else table))
    return dataclasses.replace(base, throughput_by_kind=tables)


def flows_of(problem, partial_inference):
    return array_flows(problem, [n.name for n in problem.cluster.nodes], partial_inference)


def best_flow(problem, flows):
    """The greatest flow, by trying every range of every node."""
    layers, best = problem.num_layers, 0.0
    spans = [(s, e) for s in range(layers) for e in range(s + 1, layers + 1)]
    held = [[None, *(span for span in spans if problem.fits(name, *span))] for name in flows.names]
    for chosen in itertools.product(*held):
        if all(any(span and span[0] <= layer < span[1] for span in chosen) for layer in range(layers)):
            best = max(best, flows.of_placement({n: span for n, span in zip(flows.names, chosen) if span}))
    return best


def check(data):
    problem, partial_inference = draw_problem(data, falling=True), data.draw(st.booleans())
    flows = flows_of(problem, partial_inference)
    best = best_flow(problem, flows)
    assume(best > 0)
    found = linked_bound(
        problem, groups_of(problem), flows, low=best / 3, high=problem.compute_bound, watch=Watch(60.0)
    )
    assert best * (1 - 1e-9) <= found.tokens_per_s <= best * (1 + 1e-4)
    assert found.is_finished
    assert problem.holds(found.placement)
    exact = problem.max_flow(found.placement, partial_inference=partial_inference).tokens_per_s
    assert exact == pytest.approx(best, rel=1e-4)


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_it_is_the_best_of_all_placements(data):
    check(data)


@pytest.mark.slow
@settings(max_examples=400, deadline=None)
@given(st.data())
def test_it_is_the_best_of_all_placements_on_many(data):
    check(data)


@settings(max_examples=10, deadline=None)
@given(st.data())
def test_it_holds_where_more_layers_are_faster(data):
    problem = draw_problem(data, falling=False)
    flows = flows_of(problem, True)
    best = best_flow(problem, flows)
    assume(best > 0)
    found = linked_bound(problem, groups_of(problem), flows, low=best, high=3 * best, watch=Watch(60.0))
    assert best * (1 - 1e-9) <= found.tokens_per_s <= 3 * best
    assert problem.holds(found.placement)


def slow_home():
    """Three cards at home over 0.1 Gbit/s, and a model that takes two of them."""
    nodes = [{"gpu": "RTX3090", "count": 2}, {"gpu": "RTX4090"}]
    network = {"within_region": {"bandwidth_gbps": 0.1, "latency_ms": 1}}
    cluster = hk.Cluster.model_validate({"name": "home", "nodes": nodes, "network": network})
    return cluster, hk.Model.preset("llama-30b").model_copy(update={"num_layers": 30})


def test_a_plan_of_three_machines_over_slow_links_is_proven():
    plan = hk.plan(*slow_home(), time_limit_s=6, deterministic=True)
    assert plan.gap < 1e-4
    assert min(plan.bounds, key=lambda name: plan.bounds[name]) == "B7"


def test_told_to_stop_it_gives_what_is_known():
    problem = Problem.of(*slow_home())
    stopped = Watch(60.0, stop=lambda: True)
    found = linked_bound(problem, groups_of(problem), flows_of(problem, True), low=1.0, high=9e9, watch=stopped)
    assert found.tokens_per_s == 9e9 and not found.placement and not found.is_finished


def test_counted_work_ends_alike():
    problem = Problem.of(hk.Cluster.preset("cluster10"), hk.Model.preset("llama-30b"))
    groups, flows = groups_of(problem), flows_of(problem, True)
    ends = [
        linked_bound(problem, groups, flows, low=280.0, high=287.0, watch=Watch(0.5, counted=True)) for _ in range(2)
    ]
    assert ends[0] == ends[1]


def test_nodes_with_a_link_of_their_own_are_not_interchangeable():
    nodes = [{"gpu": "T4", "count": 4, "region": "east"}, {"gpu": "T4", "count": 2, "region": "west"}]
    links = [{"source": "T4-1", "target": "T4-4", "bandwidth_gbps": 0.2}]
    network = {"within_region": {"bandwidth_gbps": 1}, "between_regions": {"bandwidth_gbps": 0.1}, "links": links}
    cluster = hk.Cluster.model_validate({"name": "six", "nodes": nodes, "network": network})
    problem = Problem.of(cluster, hk.Model.preset("llama2-70b").model_copy(update={"num_layers": 8}))
    capacities = flows_of(problem, True).capacities(np.arange(6))
    assert interchangeable(capacities) == [[0, 2, 3], [1], [4], [5]]
