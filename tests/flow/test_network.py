"""The flow network: which links there are, and what they, nodes and network cards carry."""

import pytest

import helix_kit as hk
from helix_kit.cluster import COORDINATOR
from helix_kit.flow import SINK, SOURCE, build_flow_graph, can_follow, link_capacity_tokens_per_s

MODEL = hk.Model.preset("llama2-70b")
# Per token: 8192 activations of 2 bytes and an id of 2 bytes between nodes, the id alone from and to the coordinator.
ACTIVATION_BYTES, ID_BYTES = 16386, 2


def trio(nic_gbps=80.0):
    return hk.Cluster.model_validate(
        {
            "name": "trio",
            "nodes": [{"gpu": "T4", "count": 3}],
            "network": {"within_region": {"bandwidth_gbps": 10}, "nic_gbps": nic_gbps},
        }
    )


SPANS = {"T4-0": (0, 40), "T4-1": (30, 80), "T4-2": (40, 80)}
FAST = dict.fromkeys(SPANS, 1e9)


def links(graph):
    return {edge for _, _, edge in graph.edges(data="edge") if edge[0] != edge[1]}


def test_links_join_ranges_that_follow_each_other():
    entering = {(COORDINATOR, "T4-0"), ("T4-1", COORDINATOR), ("T4-2", COORDINATOR), ("T4-0", "T4-2")}
    assert links(build_flow_graph(trio(), MODEL, SPANS, FAST)) == entering | {("T4-0", "T4-1")}
    assert links(build_flow_graph(trio(), MODEL, SPANS, FAST, partial_inference=False)) == entering


def test_only_listed_links_are_used():
    kept = [(COORDINATOR, "T4-0"), ("T4-0", "T4-1"), ("T4-1", COORDINATOR), ("T4-2", "T4-0")]
    assert links(build_flow_graph(trio(), MODEL, SPANS, FAST, links=kept)) == set(kept[:3])


@pytest.mark.parametrize(
    ("end", "span", "partial", "whole"),
    [(4, (4, 8), True, True), (4, (2, 8), True, False), (4, (5, 8), False, False), (4, (0, 4), False, False)],
)
def test_a_range_follows_where_it_holds_the_next_layer(end, span, partial, whole):
    assert can_follow(end, span) is partial
    assert can_follow(end, span, partial_inference=False) is whole


def test_links_carry_bandwidth_over_bytes_per_token():
    bytes_per_s = 10e9 / 8
    assert link_capacity_tokens_per_s(trio(), MODEL, "T4-0", "T4-1") == bytes_per_s / ACTIVATION_BYTES
    assert link_capacity_tokens_per_s(trio(), MODEL, COORDINATOR, "T4-1") == bytes_per_s / ID_BYTES
    graph = build_flow_graph(trio(), MODEL, SPANS, FAST)
    assert graph.edges[SOURCE, ("T4-0", "in")]["capacity"] == int(bytes_per_s / ID_BYTES * 1000)
    assert graph.edges[("T4-0", "out"), ("T4-2", "in")]["capacity"] == int(bytes_per_s / ACTIVATION_BYTES * 1000)
    assert graph.edges[("T4-2", "out"), SINK]["capacity"] == int(bytes_per_s / ID_BYTES * 1000)


def test_cards_carry_bare_ids_only_where_the_coordinator_is_the_sole_neighbour():
    """A card of 0.1 Gbit/s is 12.5 MB/s: 762 tokens/s with activations, 6.25 million ids."""
    graph = build_flow_graph(trio(nic_gbps=0.1), MODEL, SPANS, FAST)
    with_activations = int(12.5e6 / ACTIVATION_BYTES * 1000)
    assert [graph.edges[(n, "in"), (n, "out")]["capacity"] for n in SPANS] == [with_activations] * 3
    alone = build_flow_graph(trio(nic_gbps=0.1), MODEL, {"T4-0": (0, 80)}, {"T4-0": 1e9})
    assert alone.edges[("T4-0", "in"), ("T4-0", "out")]["capacity"] == int(12.5e6 / ID_BYTES * 1000)
    slow = build_flow_graph(trio(nic_gbps=0.1), MODEL, SPANS, {**FAST, "T4-1": 3.25})
    assert slow.edges[("T4-1", "in"), ("T4-1", "out")]["capacity"] == 3250
