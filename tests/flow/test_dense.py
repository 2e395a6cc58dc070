"""Flows of small compiled networks are those of networkx."""

import networkx as nx
import numpy as np

from helix_kit.flow.dense import dense_flow


def test_it_is_the_maximum_flow_and_what_is_left_of_the_network_says_so():
    rng = np.random.default_rng(0)
    positive = 0
    for size in (2, 3, 5, 9, 16) * 20:
        network = rng.integers(1, 50, (size, size)) * (rng.random((size, size)) < 0.35)
        np.fill_diagonal(network, 0)
        graph = nx.DiGraph()
        graph.add_nodes_from(range(size))
        graph.add_edges_from((int(a), int(b), {"capacity": int(network[a, b])}) for a, b in np.argwhere(network))
        expected = nx.maximum_flow_value(graph, size - 2, size - 1)
        left = network.astype(np.int64)
        found = dense_flow(left, *(np.zeros(size, np.int64) for _ in range(4)))
        net = network - left
        assert found == expected == net[size - 2].sum() == net[:, size - 1].sum()
        assert not net[: size - 2].sum(axis=1).any() and (left >= 0).all()
        positive += expected > 0
    assert positive > 40
