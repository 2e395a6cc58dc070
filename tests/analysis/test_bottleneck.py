"""The bottleneck in words, held against networkx's own minimum cut and plain counting."""

from __future__ import annotations

import networkx as nx
import pytest

from helix_kit import Cluster, Model, Plan, Problem
from helix_kit.analysis import bottleneck, explain
from helix_kit.analysis.bottleneck import layer_ranges
from helix_kit.flow import MILLI, SINK, SOURCE, build_flow_graph
from helix_kit.placement.served import Served
from helix_kit.typical_request import MeanLengths


@pytest.fixture
def thin_link() -> Plan:
    """One A100 in each of two regions, and a link between them that fits 9.5 tokens/s."""
    cluster = Cluster.model_validate(
        {
            "name": "thin",
            "nodes": [{"gpu": "H200-141G", "region": "us"}, {"gpu": "H200-141G", "region": "eu"}],
            "network": {"between_regions": {"bandwidth_gbps": 9.5 * 8 * 16386 / 1e9, "latency_ms": 50}},
        }
    )
    problem = Problem.of(cluster, Model.preset("llama2-70b"))
    return Plan.from_placement(problem, {"H200-141G-0": (0, 40), "H200-141G-1": (40, 80)}, method="hand")


def test_the_cut_it_names_is_a_minimum_cut(overlapping_plan):
    found = bottleneck(overlapping_plan)
    graph = build_flow_graph(
        overlapping_plan.cluster,
        overlapping_plan.model,
        overlapping_plan.placement,
        overlapping_plan.node_throughput_tokens_per_s,
    )
    capacity = {data["edge"]: data["capacity"] for _, _, data in graph.edges(data=True)}
    named = [(n, n) for n in found.nodes] + list(found.links)
    assert sum(capacity[edge] for edge in named) == nx.minimum_cut_value(graph, SOURCE, SINK)
    assert found.flow_tokens_per_s == pytest.approx(sum(capacity[e] for e in named) / MILLI)


def test_layer_ranges_cover_the_model_once_with_their_holders(overlapping_plan):
    ranges = layer_ranges(overlapping_plan)
    covered = [layer for r in ranges for layer in range(r.start, r.end)]
    assert covered == list(range(30))
    for r in ranges:
        for layer in range(r.start, r.end):
            assert {n for n, (s, e) in overlapping_plan.placement.items() if s <= layer < e} == set(r.holders)


def test_saturated_layers_and_their_only_holders_are_named(overlapping_plan):
    words = explain(overlapping_plan)
    assert "Layers 18-29 are served only by A10G-0 and T4-0" in words
    assert "V100-16G-0, " not in words.split("KV caches")[0]


def test_a_full_link_is_named_with_its_bandwidth(thin_link):
    found = bottleneck(thin_link)
    assert found.links == (("H200-141G-0", "H200-141G-1"),) and found.nodes == () and found.layers == ()
    assert "link H200-141G-0 -> H200-141G-1 (0.00125 gbps) is full" in explain(thin_link)
    assert thin_link.flow_tokens_per_s == pytest.approx(9.5 / thin_link.problem.passes_per_token, abs=1e-3)


def test_layers_that_nobody_holds_and_dead_ends_are_named(overlapping_plan):
    problem = overlapping_plan.problem
    hole = Plan.from_placement(problem, {"V100-16G-0": (0, 10), "A10G-0": (11, 30)}, method="hand")
    assert "Layer 10 is held by no machine." in explain(hole) and bottleneck(hole).nodes == ()
    whole_only = Plan.from_placement(
        problem, {"V100-16G-0": (0, 18), "A10G-0": (12, 30)}, method="hand", partial_inference=False
    )
    words = explain(whole_only)
    assert "begin exactly where another ends" in words and "held by no machine" not in words


def test_idle_machines_are_named(overlapping_plan):
    plan = Plan.from_placement(overlapping_plan.problem, {"V100-16G-0": (0, 30), "T4-1": (5, 9)}, method="hand")
    assert bottleneck(plan).idle == ("A10G-0", "T4-0", "T4-1")
    assert "A10G-0, T4-0 and T4-1 carry no flow" in explain(plan)


def test_kv_room_is_that_of_the_tightest_layer(overlapping_plan):
    found = bottleneck(overlapping_plan, mean_tokens=1000)
    room = []
    for layer in range(30):
        tokens = 0.0
        for name, (start, end) in overlapping_plan.placement.items():
            if start <= layer < end:
                kind = overlapping_plan.cluster.node(name).kind
                tokens += overlapping_plan.profiles[kind].kv_capacity(end - start) / (end - start)
        room.append(tokens)
    assert found.requests == int(min(room) // 1000)
    assert room[found.kv_layers.start] == min(room)


def test_a_machine_with_room_is_no_bottleneck_and_measured_ones_are_named(overlapping_plan):
    """A plan that uses a tenth of its placement: no cut is full. The simulator says which machine is busiest."""
    problem, placement = overlapping_plan.problem, overlapping_plan.placement
    tenth = {n: t / 10 for n, t in problem.node_throughput(placement).items()}
    flow = problem.max_flow(placement, split="balanced", capacity_tokens_per_s=tenth)
    easy = Plan.from_placement(problem, dict(placement), method="search", flow=flow)
    found = bottleneck(easy)
    assert found.nodes == () and found.links == () and found.layers == () and easy.max_flow.min_cut == ()
    assert found.spare_tokens_per_s == pytest.approx(9 * flow.tokens_per_s, rel=0.01)
    assert "would carry" in explain(easy) and "served only by" not in explain(easy)
    measured = bottleneck(overlapping_plan, simulated=True)
    assert set(measured.busy) == set(placement) and 0 < max(measured.busy.values()) <= 1
    busiest = max(measured.busy, key=measured.busy.get)
    assert busiest in explain(overlapping_plan, simulated=True).split("Under full load")[1]


@pytest.mark.parametrize(("window_s", "said"), [(0.0, "(predicted, not simulated, "), (60.0, "(simulated, ")])
def test_what_a_plan_serves_is_called_simulated_only_if_it_was(overlapping_plan, window_s, said):
    served = Served(decode_tokens_per_s=10.0, window_s=window_s, mode="offline", execution="range")
    assert said in explain(overlapping_plan.model_copy(update={"served": served})).splitlines()[0]


def test_machines_without_a_link_are_no_full_link():
    cluster = Cluster.model_validate({
        "name": "split",
        "coordinator": {"region": "a"},
        "nodes": [{"gpu": "A100-80G", "region": "a"}, {"gpu": "A100-80G", "region": "b"}],
        "network": {"links": [{"between": ["a", "b"], "bandwidth_gbps": 0}]},
    })  # fmt: skip
    problem = Problem.of(cluster, Model.preset("llama3.1-8b"))
    plan = Plan.from_placement(problem, {"A100-80G-0": (0, 32), "A100-80G-1": (0, 32)}, method="hand")
    assert bottleneck(plan).links == () and "1e-15" not in explain(plan)
    alone = Plan.from_placement(problem, {"A100-80G-0": (0, 32)}, method="hand")
    assert bottleneck(plan).requests == bottleneck(alone).requests  # room that no request reaches is none


@pytest.mark.parametrize(
    ("lengths", "said"),
    [
        (MeanLengths(2000, 10), "requests of 2,010 tokens fit at once"),
        (MeanLengths(330_000, 10), "about 1 request of 330,010 tokens fits at once"),
        (None, "requests of 995 tokens fit at once"),
    ],
)
def test_kv_room_is_counted_in_requests_of_the_plan(lengths, said):
    cluster = Cluster.model_validate({"name": "one", "nodes": [{"gpu": "A100-80G"}]})
    problem = Problem.of(cluster, Model.preset("llama3.1-8b"), None, lengths)
    plan = Plan.from_placement(problem, {"A100-80G-0": (0, 32)}, method="hand")
    assert said in explain(plan)
