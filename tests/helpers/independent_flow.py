"""Maximum flow of a plan, computed apart from the package: the oracle for plan values."""

import networkx as nx

from helix_kit.cluster import COORDINATOR


def independent_flow(plan):
    """Max flow of a plan by a graph written down here from the paper, solved by another algorithm."""
    model, graph = plan.model, nx.DiGraph()
    spans = plan.placement
    activation = model.activation_bytes_per_token + 2

    def connect(a, b, size):
        link = plan.cluster.link(a, b)
        graph.add_edge((a, "out"), (b, "in"), capacity=int(link.bandwidth_gbps * 1e9 / 8 / size * 1000))

    for a, (start, end) in spans.items():
        graph.add_edge((a, "in"), (a, "out"), capacity=int(plan.node_throughput_tokens_per_s[a] * 1000))
        if start == 0:
            connect(COORDINATOR, a, 2)
        if end == model.num_layers:
            connect(a, COORDINATOR, 2)
        for b, (next_start, next_end) in spans.items():
            if a != b and next_start <= end < next_end:
                connect(a, b, activation)
    ids = {v: i for i, v in enumerate(graph)}
    graph = nx.relabel_nodes(graph, ids)
    source, sink = ids[COORDINATOR, "out"], ids[COORDINATOR, "in"]
    return nx.maximum_flow_value(graph, source, sink, flow_func=nx.algorithms.flow.edmonds_karp) / 1000
