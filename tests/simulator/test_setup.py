"""From a plan to arrays: paths, links by sender and by receiver, and what is refused."""

from __future__ import annotations

import networkx as nx
import numpy as np
import pytest

from helix_kit.cluster import COORDINATOR
from helix_kit.errors import InputError
from helix_kit.scheduling.policy import valid_links
from helix_kit.simulator.setup import build_setup, load_seconds, longest_path, new_heap


@pytest.fixture
def setup(plan):
    return build_setup(plan, valid_links(plan))


def test_the_longest_path_is_that_of_the_graph(plan, setup):
    ends = {COORDINATOR: ("out", "back")}
    graph = nx.DiGraph((ends.get(a, (a,))[0], ends.get(b, (b,))[-1]) for a, b in valid_links(plan))
    assert longest_path(setup) == nx.dag_longest_path_length(graph)


def test_links_stand_together_by_sender_and_are_found_by_receiver(plan, setup):
    assert set(setup.edges) == set(valid_links(plan))
    names = [*setup.names, COORDINATOR, COORDINATOR]
    for number, name in enumerate(setup.names):
        node = setup.nodes[number]
        sent = setup.edges[node["first_link"] : node["first_link"] + node["links"]]
        received = [setup.edges[i] for i in setup.into[node["first_into"] : node["first_into"] + node["intos"]]]
        assert sorted(sent) == sorted(edge for edge in setup.edges if edge[0] == name)
        assert sorted(received) == sorted(edge for edge in setup.edges if edge[1] == name)
    assert [(names[link["source"]], names[link["target"]]) for link in setup.links] == setup.edges


def test_a_pipeline_becomes_its_links(plan, setup):
    for pipeline, _ in plan.pipelines:
        walked = [setup.edges[number] for number in setup.route_of(pipeline)]
        stages = [stage.node for stage in pipeline]
        assert walked == list(zip([COORDINATOR, *stages], [*stages, COORDINATOR], strict=True))


def test_activations_travel_between_nodes_and_token_ids_to_the_coordinator(setup):
    by_edge = dict(zip(setup.edges, setup.links["bytes_per_token"], strict=True))
    assert by_edge["A100-40G-0", "A100-40G-1"] == 2 * 6656 + 2  # 16 bits a hidden value, and the token id
    assert by_edge[COORDINATOR, "A100-40G-0"] == by_edge["A100-40G-2", COORDINATOR] == 2


def test_a_link_of_another_plan_is_named(plan):
    with pytest.raises(InputError, match=r"links between nodes of the plan.*T4-9|T4-9.*links"):
        build_setup(plan, [("A100-40G-0", "T4-9")])


def test_serving_starts_when_the_fullest_node_has_read_its_layers(plan):
    """20 layers at 1 GB/s, rounded up, and one second."""
    assert load_seconds(plan) == np.ceil(20 * plan.model.layer_gb) + 1


def test_a_heap_has_room_for_one_more_than_asked():
    heap, _ = new_heap(3)
    assert len(heap) == 4  # the place behind the last event is read, never used
