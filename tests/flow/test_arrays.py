"""Flows from arrays are the maximum flows that networkx finds."""

import numpy as np
import pytest

import helix_kit as hk
from helix_kit.flow.arrays import MAX_CAPACITY, ArrayFlows
from helix_kit.placement import Problem
from helix_kit.placement.baselines import petals_placement, swarm_placement
from helix_kit.search.moves import neighbours


@pytest.mark.parametrize("nic_gbps", [80.0, 0.05])
@pytest.mark.parametrize("partial", [True, False])
def test_flows_of_arrays_are_the_maximum_flows(nic_gbps, partial):
    """The fast flows that swaps are judged by, beside networkx: plans, and places near them; cards bind in half."""
    cluster = hk.Cluster.preset("geo24")
    network = cluster.network.model_copy(update={"nic_gbps": nic_gbps})
    problem = Problem.of(cluster.model_copy(update={"network": network}), hk.Model.preset("llama-30b"))
    pattern = hk.plan(problem.cluster, problem.model, max_stages=12, time_limit_s=1).placement
    starts = [petals_placement(problem), swarm_placement(problem), pattern]
    rng = np.random.default_rng(5)
    layouts = [near for layout in starts for near in (layout, *neighbours(problem, layout, rng, 5))]
    names = [n.name for n in cluster.nodes]
    flows = ArrayFlows(
        problem.cluster,
        problem.model,
        {n: [problem.throughput(n, k) for k in range(1, problem.max_layers(n) + 1)] for n in names},
        partial_inference=partial,
    )
    found = []
    for layout in layouts:
        spans = np.array(list(layout.values()))
        nodes = np.array([flows.index[n] for n in layout])
        found.append(problem.max_flow(layout, partial_inference=partial).tokens_per_s)
        assert flows.tokens_per_s(nodes, *spans.T) == pytest.approx(found[-1], abs=1e-6)
    assert sum(value > 0 for value in found) > len(found) / 2


def test_capacities_too_large_for_32_bits_do_not_overflow():
    """A link of 10^9 Gbit/s would need 38 bits: it is cut down, and the nodes still bind."""
    network = {"within_region": {"bandwidth_gbps": 1e9}, "nic_gbps": 1e9}
    cluster = hk.Cluster.model_validate({"name": "wide", "nodes": [{"gpu": "T4", "count": 2}], "network": network})
    model = hk.Model.preset("llama2-70b").model_copy(update={"num_layers": 2})
    flows = ArrayFlows(cluster, model, {"T4-0": [700.0], "T4-1": [500.0]}, partial_inference=True)
    value = flows.tokens_per_s(np.array([0, 1]), np.array([0, 1]), np.array([1, 2]))
    assert value == 500.0 < MAX_CAPACITY / 1000
