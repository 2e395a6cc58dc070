"""What the published program fixes: granted bandwidth, the scheduler's constants, offline feeds."""

from __future__ import annotations

import numpy as np
import pytest

from helix_kit.simulator import SimulationOptions
from helix_kit.simulator.layerwise import published
from helix_kit.simulator.setup import build_setup


@pytest.fixture
def setup(plan):
    return build_setup(plan, list(plan.flow_edges))


def test_granted_bandwidth_shares_every_card_by_the_bytes_that_the_flow_sends(plan, setup):
    setup.nodes["nic"] = 1e8  # cards narrower than the links within a region
    published.grant_bandwidth(setup)
    granted, flow = setup.links["granted"], np.array([plan.flow_edges[edge] for edge in setup.edges])
    assert (granted > 0).all() and (granted <= setup.links["bandwidth"]).all()
    for end in ("source", "target"):
        for endpoint in np.unique(setup.links[end]):
            assert granted[setup.links[end] == endpoint].sum() <= 1e8 + 1
    sent = flow * setup.links["bytes_per_token"]
    first, second = np.flatnonzero(setup.links["source"] == len(setup.names))
    assert granted[first] / granted[second] == pytest.approx(sent[first] / sent[second], rel=1e-6)


def test_one_link_alone_gets_the_whole_card_to_the_last_byte(plan, setup):
    setup.nodes["nic"], setup.links["bandwidth"] = 1e9 / 3, 1e12
    published.grant_bandwidth(setup)
    alone = [
        i
        for i, link in enumerate(setup.links)
        if (setup.links["source"] == link["source"]).sum() == (setup.links["target"] == link["target"]).sum() == 1
    ]
    assert alone
    assert (setup.links["granted"][alone] == 333_333_333).all()


@pytest.mark.parametrize(("mode", "marks"), [("online", (0.9, 0.6)), ("offline", (0.85, 1.0))])
def test_constants_of_the_published_scheduler(setup, mode, marks):
    options = published.helix_options(setup, SimulationOptions(mode=mode))
    assert options["kv"] == "expectation"
    assert (options["high_water"], options["output_ratio"]) == marks
    prompts = dict(zip(setup.names, setup.compute_nodes["prefill_max"], strict=True))
    assert options["max_prompt_tokens"] == {name: 2048 * int(count) for name, count in prompts.items()}


def test_offline_requests_are_fed_by_kv_use_or_by_the_tightest_layer(plan, setup):
    feed = published.offline_feed(setup, "helix")
    assert (feed.initial, feed.kv_mark) == (20, 0.8)
    room = [
        sum(plan.profiles[plan.problem.kind_of[node]].kv_capacity(end - start) / (end - start)
            for node, (start, end) in plan.placement.items() if start <= layer < end)
        for layer in range(plan.model.num_layers)
    ]  # fmt: skip
    feed = published.offline_feed(setup, "swarm")
    assert feed.kv_mark is None
    assert feed.initial == int(0.6 * min(room) / 1000)


def test_at_least_one_request_is_in_flight(setup):
    setup.nodes["kv_capacity"] = 1
    assert published.offline_feed(setup, "random").initial == 1
