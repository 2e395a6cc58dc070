"""The compiled steps: their flow is that of an independent solver, and their moves keep to the limits of nodes."""

import numpy as np
import pytest

import helix_kit as hk
from helix_kit.placement import Problem
from helix_kit.placement.annealing import moves
from helix_kit.placement.pattern.mixed_regions import array_flows


@pytest.fixture(scope="module")
def problem():
    nodes = [{"gpu": "L4", "count": 4, "region": "east"}, {"gpu": "T4", "count": 3, "region": "west"}]
    network = {"within_region": {"bandwidth_gbps": 1}, "between_regions": {"bandwidth_gbps": 0.05}}
    cluster = hk.Cluster.model_validate({"name": "seven", "nodes": nodes, "network": network})
    return Problem.of(cluster, hk.Model.preset("llama2-70b").model_copy(update={"num_layers": 12}))


@pytest.mark.parametrize("partial_inference", [True, False])
def test_dense_flow_is_the_maximum_flow(problem, partial_inference):
    names = [n.name for n in problem.cluster.nodes]
    flows = array_flows(problem, names, partial_inference)
    capacities = flows.capacities(np.arange(len(names)))
    size = 2 * len(names) + 2
    rng = np.random.default_rng(0)
    positive = 0
    for _ in range(60):
        sizes = [int(rng.integers(1, problem.max_layers(n) + 1)) for n in names]
        starts = [int(rng.choice([0, 12 - k, rng.integers(12 - k + 1)])) for k in sizes]
        placement = {n: (s, s + k) for n, s, k in zip(names, starts, sizes)}
        network, work = np.zeros((size, size), np.int64), [np.zeros(size, np.int64) for _ in range(4)]
        now = moves.Ranges(np.array(starts), np.array(starts) + np.array(sizes))
        moves.fill_network(network, capacities, now, 12, partial_inference)
        found = moves.dense_flow(network, *work) / flows.units_per_token
        expected = problem.max_flow(placement, partial_inference=partial_inference).tokens_per_s
        assert found == pytest.approx(expected, abs=0.002)
        positive += expected > 0
    assert positive > 10


def by_length(layers):
    """Columns of ranges [s, e) of layers that are alike: e - s."""
    return np.maximum(0, np.subtract.outer(np.arange(layers + 1), np.arange(layers + 1)).T)


def test_moves_keep_to_the_model_and_the_memory():
    nodes = moves.Nodes(np.ones((3, 5)), np.array([3, 2, 4]), np.array([0, 2]), by_length(8))
    now = moves.Ranges(np.array([0, 3, 3]), np.array([3, 5, 6]))
    moved, new = np.zeros(2, np.int64), moves.Ranges(np.zeros(2, np.int64), np.zeros(2, np.int64))
    counts = set()
    for _ in range(3000):
        count = moves.propose(nodes, now, 8, moved, new)
        counts.add(count)
        for at in range(count):
            assert moved[at] != 1
            assert 0 <= new.starts[at] < new.ends[at] <= 8
            assert new.ends[at] - new.starts[at] <= nodes.largest[moved[at]]
    assert counts == {0, 1, 2}


def test_annealing_covers_layers_that_need_every_node():
    """Four nodes of two layers at 10 tokens/s and one of four at 10: 20 tokens/s on six layers needs all of them."""
    throughput = np.zeros((5, 5))
    throughput[:4, 1:3] = 10.0
    throughput[4, 1:5] = 10.0
    nodes = moves.Nodes(throughput, np.array([2, 2, 2, 2, 4]), np.arange(5), by_length(6))
    now = moves.Ranges(np.zeros(5, np.int64), nodes.largest.copy())
    best = now.copy()
    missing = moves.anneal_coverage(nodes, now, best, 6, 20.0, moves.Schedule(6.0, 0.01, 50_000, 0))
    assert missing == pytest.approx(0.0)
    held = np.zeros(6)
    for start, end in zip(best.starts, best.ends):
        held[start:end] += 10.0
    assert held.min() == 20.0
