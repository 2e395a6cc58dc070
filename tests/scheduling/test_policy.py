"""What a policy knows of a plan: its links, their flow and the KV capacities."""

from __future__ import annotations

from helix_kit.scheduling.policy import Topology, valid_links


def test_valid_links_are_those_the_flow_network_has(plan):
    graph_links = {e for e in plan.max_flow.capacities if e[0] != e[1]}
    assert set(valid_links(plan)) == graph_links


def test_a_topology_has_the_links_asked_for_with_their_flow(plan):
    flow, given = plan.flow_edges, [("coordinator", "L4-0"), ("L4-0", "L4-1")]
    assert (
        dict(
            zip(
                Topology.of(plan).links,
                [f for hops in Topology.of(plan).next_hops.values() for _, f in hops],
                strict=True,
            )
        )
        == flow
    )
    assert set(Topology.of(plan, links="all").links) == set(valid_links(plan)) > set(flow)
    assert Topology.of(plan, links=given).links == tuple(given)


def test_a_given_kv_capacity_replaces_that_of_the_profile(plan):
    usual = Topology.of(plan).kv_capacity_layer_tokens
    changed = Topology.of(plan, kv_capacity={"T4-3": 5}).kv_capacity_layer_tokens
    assert changed == {**usual, "T4-3": 5}
