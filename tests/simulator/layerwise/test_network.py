"""Transfers under the published rules: the bandwidth that is free on the way, and the choice of the next link."""

from __future__ import annotations

from collections import Counter

import pytest

from helix_kit.simulator import simulate
from helix_kit.simulator.layerwise import network
from helix_kit.simulator.state import LINK, NODE, REQUEST, filled
from helix_kit.workload import Workload

BUSY = Workload.poisson(rate_per_s=3.0, duration_s=40, input_tokens=200, output_tokens=10, seed=1)


@pytest.mark.parametrize(
    ("sender_free", "link_free", "receiver_free", "rate"),
    [
        (1200.0, 900.0, 1200.0, 400.0),  # a third of the card
        (300.0, 900.0, 1200.0, 300.0),
        (1200.0, 900.0, 100.0, 100.0),
        (1200.0, 700.0, 1200.0, 200.0),  # 200 of the link are taken: they count towards the share
        (1200.0, 450.0, 1200.0, -50.0),
    ],
)
def test_a_transfer_gets_an_even_share_of_what_is_free(sender_free, link_free, receiver_free, rate):
    nodes, links = filled(NODE, 2), filled(LINK, 1)
    nodes["nic"], nodes["links"] = 1200.0, 3
    nodes[0]["send_free"], nodes[1]["receive_free"] = sender_free, receiver_free
    links[0]["target"], links[0]["bandwidth"], links[0]["free"] = 1, 900.0, link_free
    assert network.free_rate(links[0], nodes) == rate


def test_a_list_of_waiting_requests_loses_any_of_its_members():
    for gone in ([0], [2], [1, 0], [2, 1, 0], [0, 1, 2], [1]):
        endpoint, requests = filled(NODE, 1, ("out_head", "out_tail")), filled(REQUEST, 3, ("out_next", "out_previous"))
        requests["out_next"], requests["out_previous"] = [1, 2, -1], [-1, 0, 1]
        endpoint["out_head"], endpoint["out_tail"], endpoint["out_prompts"] = 0, 2, 3
        for number in gone:
            network.unlist(endpoint[0], requests, number)
        left = [number for number in range(3) if number not in gone]
        forward, at = [], endpoint[0]["out_head"]
        while at >= 0:
            forward.append(int(at))
            at = requests[at]["out_next"]
        assert forward == left and endpoint["out_prompts"] == len(left)
        assert endpoint["out_tail"] == (left[-1] if left else -1)


@pytest.mark.parametrize("policy", ["random", "shortest_queue", "swarm"])
def test_hop_by_hop_policies_use_every_node(plan, policy):
    run = simulate(plan, BUSY, policy=policy, execution="layerwise", duration_s=400)
    assert run.summary()["finished"] == len(BUSY)
    used = Counter(stage.node for record in run.records for stage in record.pipeline)
    assert set(used) == set(plan.placement)
    for record in run.records:
        assert [stage.start for stage in record.pipeline] == [0, *(stage.end for stage in record.pipeline[:-1])]
        assert record.pipeline[-1].end == plan.model.num_layers


def test_swarm_prefers_the_faster_of_two_first_nodes(plan):
    """An A100 is many times as fast as two L4 behind a slow link."""
    run = simulate(plan, BUSY, policy="swarm", execution="layerwise", duration_s=400)
    first = Counter(record.pipeline[0].node for record in run.records)
    assert first["A100-40G-0"] > 2 * first["L4x2-0"]
