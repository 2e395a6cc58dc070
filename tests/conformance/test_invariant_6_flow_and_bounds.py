"""Invariant 6: a plan's flow is re-derived by an independent max flow, is at most its bound, its bound at most B0."""

import networkx as nx
import pytest

import helix_kit as hk
from helix_kit.cluster import COORDINATOR

CASES = [
    ("single24", "llama2-70b"), ("single24", "llama-30b"), ("hetero42", "llama2-70b"), ("cluster10", "llama-30b"),
    ("laptop", "SmolLM2-135M"),
]  # fmt: skip
METHODS = ("pattern", "swarm", "petals", "proportional", "parallax")


def rederived(plan):
    """The maximum flow by a graph built here from the paper's section 4.2, and another algorithm than the package's."""
    graph, spans, size = nx.DiGraph(), plan.placement, plan.model.activation_bytes_per_token + 2

    def rate(a, b, size):
        return int(plan.cluster.link(a, b).bandwidth_gbps * 1e9 / 8 / size * 1000)

    for a, (start, end) in spans.items():
        graph.add_edge((a, 0), (a, 1), capacity=int(plan.node_throughput_tokens_per_s[a] * 1000))
        if start == 0:
            graph.add_edge("source", (a, 0), capacity=rate(COORDINATOR, a, 2))
        if end == plan.model.num_layers:
            graph.add_edge((a, 1), "sink", capacity=rate(a, COORDINATOR, 2))
        for b, (s, e) in spans.items():
            if a != b and s <= end < e:
                graph.add_edge((a, 1), (b, 0), capacity=rate(a, b, size))
    ids = {v: i for i, v in enumerate(graph)}
    numbered = nx.relabel_nodes(graph, ids)
    return nx.maximum_flow_value(numbered, ids["source"], ids["sink"], flow_func=nx.algorithms.flow.dinitz) / 1000


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("cluster", "model"), CASES)
def test_flow_is_rederived_and_under_its_bounds(cluster, model, method):
    plan = hk.plan(cluster, model, method=method, time_limit_s=10)
    assert plan.flow_tokens_per_s == pytest.approx(rederived(plan), rel=1e-6)
    assert plan.flow_tokens_per_s <= plan.bound_tokens_per_s
    assert plan.bound_tokens_per_s == min(plan.bounds.values())
    assert plan.bound_tokens_per_s <= plan.problem.compute_bound * (1 + 1e-9)


@pytest.mark.parametrize(("cluster", "model"), CASES)
def test_no_bound_of_one_method_is_below_a_value_of_another(cluster, model):
    plans = [hk.plan(cluster, model, method=m, time_limit_s=10) for m in METHODS]
    best = max(p.flow_tokens_per_s for p in plans)
    for plan in plans:
        for name, bound in plan.bounds.items():
            assert bound >= best * (1 - 1e-9), (plan.method, name)
