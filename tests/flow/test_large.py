"""The solver of large networks agrees with networkx, also where capacities exceed 32 bits."""

import networkx as nx
import numpy as np
import pytest

import helix_kit as hk
from helix_kit.experiments.figures.common.synthetic import synthetic_cluster
from helix_kit.flow import maximum
from helix_kit.flow.large import large_flow
from helix_kit.placement import Problem
from helix_kit.placement.baselines import petals_placement


@pytest.mark.parametrize("largest", [10, 10**6, 10**10, 10**13])
def test_random_networks(largest):
    rng = np.random.default_rng(largest)
    for seed in range(12):
        size = int(rng.integers(4, 25))
        graph = nx.gnp_random_graph(size, 0.4, seed=seed, directed=True)
        graph.remove_edges_from([(a, b) for a, b in graph.edges if a > b])
        for a, b in graph.edges:
            graph[a][b]["capacity"] = int(rng.integers(0, largest))
        expected, _ = nx.maximum_flow(graph, 0, size - 1)
        edges = np.array(list(graph.edges(data="capacity")), np.int64).reshape(-1, 3)
        flow = large_flow(*edges.T, size, 0, size - 1)
        balance = np.zeros(size, np.int64)
        np.add.at(balance, edges[:, 0], flow)
        np.subtract.at(balance, edges[:, 1], flow)
        assert (flow >= 0).all() and (flow <= edges[:, 2]).all()
        assert balance[0] == expected and not balance[1:-1].any()


def test_both_solvers_find_the_same_value(monkeypatch):
    problem = Problem.of(synthetic_cluster(60, regions=2), hk.Model.preset("llama2-70b"))
    placement = petals_placement(problem)
    usual = problem.max_flow(placement)
    monkeypatch.setattr(maximum, "MANY_EDGES", 0)
    large = problem.max_flow(placement)
    assert large.tokens_per_s == usual.tokens_per_s
    assert sum(large.capacities[edge] for edge in large.min_cut) == pytest.approx(large.tokens_per_s)
