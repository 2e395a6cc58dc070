"""The balanced maximum flow: exact, conserved, even, and no worse than another convex solver's."""

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import helix_kit as hk
from helix_kit.cluster import COORDINATOR
from helix_kit.flow import build_flow_graph, max_flow
from helix_kit.flow.balanced import balanced_flow

CASES = [("single24", "swarm"), ("single24", "petals"), ("hetero42", "pattern"), ("geo24", "petals")]


def cost(flow, speed):
    return sum(flow.through(n) ** 2 / (2 * speed[n]) for n in speed)


@pytest.mark.parametrize(("cluster", "method"), CASES)
def test_exact_conserved_and_more_even(cluster, method):
    plan = hk.plan(cluster, "llama2-70b", method=method, flow_split="any")
    even = plan.problem.max_flow(plan.placement, split="balanced")
    assert even.tokens_per_s == plan.flow_tokens_per_s
    for node in plan.placement:
        leaving = sum(f for (a, _), f in even.edges.items() if a == node)
        assert leaving == pytest.approx(even.through(node), abs=1e-6)
    assert all(f <= even.capacities[e] + 1e-9 for e, f in even.edges.items())
    speed = plan.node_throughput_tokens_per_s
    assert cost(even, speed) <= cost(plan.max_flow, speed) * (1 + 1e-6)


def test_equal_replicas_get_equal_shares():
    cluster = hk.Cluster.model_validate({"name": "c", "nodes": [{"gpu": "A100-40G", "count": 8}, {"gpu": "T4"}]})
    model = hk.Model.preset("llama2-70b")
    spans = {f"A100-40G-{i}": (0, 40) for i in range(3)} | {f"A100-40G-{i}": (40, 80) for i in range(3, 8)}
    graph = build_flow_graph(cluster, model, spans, dict.fromkeys(spans, 100.0))
    flow = balanced_flow(graph)
    assert flow.tokens_per_s == 300.0
    assert [flow.through(f"A100-40G-{i}") for i in range(3, 8)] == pytest.approx([60.0] * 5, abs=0.3)
    between = [f for (a, b), f in flow.edges.items() if COORDINATOR not in (a, b)]
    assert between == pytest.approx([20.0] * 15, abs=0.3)


RESOLUTION_TOKENS_PER_S = 1.0
"""Flow or room below this counts as none: links are rounded to within 1e-4 of the flow, which is some hundreds."""
TOLERANCE = 0.005
"""Of a node's utilisation: the small cost of links, which is not in the certificate, may outweigh as much."""


def residual_graph(flow, speed):
    """Edges along which flow may grow (forwards) or shrink (backwards), with what a token/s more costs.

    The cost of node i is f^2 / (2 T), so its derivative is f / T, the utilisation. Links cost nothing here.
    """
    residual = nx.DiGraph()

    def add(source, target, amount, capacity, slope):
        slack = TOLERANCE if slope is not None else 0.0
        if capacity - amount > RESOLUTION_TOKENS_PER_S:
            residual.add_edge(source, target, weight=(slope or 0.0) + slack)
        if amount > RESOLUTION_TOKENS_PER_S:
            residual.add_edge(target, source, weight=-(slope or 0.0) + slack)

    for (a, b), capacity in flow.capacities.items():
        if a == b:
            add((a, "in"), (a, "out"), flow.through(a), capacity, flow.through(a) / speed[a])
        else:
            add((a, "out"), (b, "in"), flow.edges.get((a, b), 0.0), capacity, None)
    return residual


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6))
def test_no_cycle_of_the_residual_graph_lowers_the_cost(seed):
    """Optimality by its certificate: a convex cost is least iff moving flow round no residual cycle lowers it."""
    rng = np.random.default_rng(seed)
    cluster = hk.Cluster.model_validate({"name": "c", "nodes": [{"gpu": "L4", "count": 8}]})
    model = hk.Model.preset("llama2-70b").model_copy(update={"num_layers": 8})
    # One node for each third of the model, and five whose ranges overlap at random: flows mix at many places.
    spans = {"L4-0": (0, 3), "L4-1": (3, 5), "L4-2": (5, 8)}
    for i in range(3, 8):
        start = int(rng.integers(0, 7))
        spans[f"L4-{i}"] = (start, int(rng.integers(start + 1, min(8, start + 4) + 1)))
    speed = {n: float(rng.integers(50, 500)) for n in spans}
    graph = build_flow_graph(cluster, model, spans, speed)
    flow = balanced_flow(graph)
    maximum = max_flow(graph)
    assert flow.tokens_per_s == maximum.tokens_per_s
    assert not nx.negative_edge_cycle(residual_graph(flow, speed))
    # The certificate can fail: a maximum flow that is not balanced and costs clearly more has such a cycle.
    if cost(maximum, speed) > 1.05 * cost(flow, speed):
        assert nx.negative_edge_cycle(residual_graph(maximum, speed))


def test_keeps_to_wide_links_where_nodes_are_no_worse_loaded():
    """Two pipelines with a cut in common, in two regions: the flow may mix them, and need not."""
    near = {"bandwidth_gbps": 10, "latency_ms": 1}
    cluster = hk.Cluster.model_validate(
        {
            "name": "two",
            "coordinator": {"region": "a"},
            "nodes": [{"gpu": "L4", "count": 2, "region": "a"}, {"gpu": "T4", "count": 2, "region": "b"}],
            "network": {"within_region": near, "between_regions": {"bandwidth_gbps": 0.03, "latency_ms": 50}},
        }
    )
    spans = {"L4-0": (0, 40), "L4-1": (40, 80), "T4-0": (0, 40), "T4-1": (40, 80)}
    graph = build_flow_graph(cluster, hk.Model.preset("llama2-70b"), spans, dict.fromkeys(spans, 100.0))
    flow = balanced_flow(graph)
    assert flow.tokens_per_s == 200.0
    mixed = flow.edges.get(("L4-0", "T4-1"), 0.0) + flow.edges.get(("T4-0", "L4-1"), 0.0)
    assert mixed < 60.0  # 100 where links do not count


def test_balanced_is_the_default_and_any_is_kept():
    even = hk.plan("single24", "llama2-70b", method="swarm")
    first = hk.plan("single24", "llama2-70b", method="swarm", flow_split="any")
    assert (even.flow_split, first.flow_split) == ("balanced", "any")
    assert even.placement == first.placement
    assert even.flow != first.flow
    assert even.flow_tokens_per_s == first.flow_tokens_per_s
    with pytest.raises(hk.InputError, match="flow_split"):
        hk.plan("single24", "llama2-70b", flow_split="some")


def test_graph_without_flow():
    graph = nx.DiGraph()
    cluster = hk.Cluster.preset("single24")
    graph = build_flow_graph(cluster, hk.Model.preset("llama2-70b"), {"T4-0": (0, 4)}, {"T4-0": 700.0})
    assert balanced_flow(graph).tokens_per_s == 0
