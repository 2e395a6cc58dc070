"""What a border loses is what a maximum flow over its links says, and annealing ends where nothing is lost."""

import networkx as nx
import numpy as np
import pytest

from helix_kit.placement.annealing.crossing_moves import (
    Borders,
    Flows,
    Network,
    Room,
    anneal_crossings,
    lost_at,
    put,
    take,
)
from helix_kit.placement.annealing.moves import Nodes, Ranges, Schedule

WIDE = 1e6


def border_of(flows, region, num_enders, link):
    """One border, before layer 1 of 2: the first nodes end there, the others start there."""
    count, regions = len(flows), len(link)
    rows = np.zeros((3, count), np.int64)
    borders = Borders(np.zeros(2), rows, np.zeros(3, np.int64), rows.copy(), np.zeros(3, np.int64))
    for i in range(count):
        put(borders, i, *((0, 1) if i < num_enders else (1, 2)), flows[i])
    room = Room(np.zeros(regions), np.zeros(regions), np.zeros(count), np.zeros(count), np.zeros(count, np.int64))
    return borders, Network(np.array(region, np.int64), np.array(link, float)), room


def by_maximum_flow(flows, region, num_enders, link):
    graph = nx.DiGraph()
    for i, tokens in enumerate(flows):
        graph.add_edge(*(("source", i) if i < num_enders else (i, "sink")), capacity=tokens)
    for i in range(num_enders):
        for j in range(num_enders, len(flows)):
            graph.add_edge(i, j, capacity=link[region[i]][region[j]])
    could = min(sum(flows[:num_enders]), sum(flows[num_enders:]))
    return could - nx.maximum_flow_value(graph, "source", "sink")


def test_two_regions_lose_what_links_cannot_carry():
    """Two senders and three receivers over links of 10: at most 20 from each sender to two, 30 to three."""
    link = [[WIDE, 10.0], [10.0, WIDE]]
    flows = np.array([50.0, 10.0, 20.0, 20.0, 20.0])
    borders, network, room = border_of(flows, [0, 0, 1, 1, 1], 2, link)
    # The first sends 30 and the second 10.
    assert lost_at(borders, 1, flows, network, room) == pytest.approx(20.0)


def test_losses_are_those_of_a_maximum_flow_between_two_regions():
    rng = np.random.default_rng(3)
    losing = 0
    for _ in range(300):
        num_enders, count = int(rng.integers(1, 5)), int(rng.integers(6, 9))
        flows = rng.integers(1, 60, count).astype(float)
        # All senders are in one region and all receivers in the other: then even shares are no choice.
        region = [0] * num_enders + [1] * (count - num_enders)
        link = [[WIDE, 12.0], [12.0, WIDE]]
        borders, network, room = border_of(flows, region, num_enders, link)
        expected = by_maximum_flow(flows, region, num_enders, link)
        lost = lost_at(borders, 1, flows, network, room)
        assert lost >= expected - 1e-6
        losing += expected > 1
    assert losing > 50


def test_what_is_said_to_pass_does_pass():
    """In any mix of regions a border never passes more than a maximum flow does."""
    rng = np.random.default_rng(5)
    for _ in range(300):
        num_enders, count = int(rng.integers(1, 5)), int(rng.integers(6, 9))
        flows = rng.integers(1, 60, count).astype(float)
        region = rng.integers(0, 3, count).tolist()
        link = [[WIDE if r == q else 9.0 for q in range(3)] for r in range(3)]
        borders, network, room = border_of(flows, region, num_enders, link)
        lost = lost_at(borders, 1, flows, network, room)
        assert lost >= by_maximum_flow(flows, region, num_enders, link) - 1e-6


def test_a_node_taken_away_leaves_nothing():
    borders, _, _ = border_of(np.array([5.0, 7.0]), [0, 0], 1, [[WIDE]])
    take(borders, 0, 0, 1, 5.0)
    take(borders, 1, 1, 2, 7.0)
    assert borders.carried.tolist() == [0.0, 0.0]
    assert borders.num_enders.sum() == borders.num_starters.sum() == 0


def annealed(link, target, with_two_layers):
    """Two regions of two nodes for four layers: each node carries 10 with one layer, or less with two."""
    tables = np.array([[0.0, 10.0, with_two_layers, 0.0, 0.0]] * 4)
    layers = np.arange(5)
    columns = np.maximum(0, layers[None, :] - layers[:, None])
    nodes = Nodes(tables, np.full(4, 2, np.int64), np.arange(4), columns)
    network = Network(np.array([0, 0, 1, 1], np.int64), np.array(link, float))
    now, best = (Ranges(np.zeros(4, np.int64), np.ones(4, np.int64)) for _ in range(2))
    flows = Flows(np.zeros(4), np.zeros(4))
    least = anneal_crossings(nodes, network, now, best, flows, 4, target, Schedule(3.0, 0.1, 60_000, 1))
    return least, best


def test_a_chain_over_a_thin_link_loses_what_the_link_does_not_carry():
    """A layer each: requests pass from the one region to the other once at least."""
    least, _ = annealed([[WIDE, WIDE], [WIDE, WIDE]], 10.0, with_two_layers=0.0)
    assert least == pytest.approx(0.0, abs=1e-4)
    least, best = annealed([[WIDE, 1.0], [1.0, WIDE]], 10.0, with_two_layers=0.0)
    assert least == pytest.approx(9.0, abs=1e-4)
    region_of_layer = [int(np.flatnonzero(best.starts == layer)[0] // 2) for layer in range(4)]
    assert region_of_layer in ([0, 0, 1, 1], [1, 1, 0, 0])


def test_regions_without_links_serve_side_by_side():
    """A pipeline of two nodes in each region carries 6."""
    least, best = annealed([[WIDE, 0.0], [0.0, WIDE]], 12.0, with_two_layers=6.0)
    assert least == pytest.approx(0.0, abs=1e-4)
    for region in (slice(0, 2), slice(2, 4)):
        assert sorted(zip(best.starts[region].tolist(), best.ends[region].tolist())) == [(0, 2), (2, 4)]
