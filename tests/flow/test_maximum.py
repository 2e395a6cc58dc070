"""The maximum flow: the value of its cut, conserved, within capacities, the same whatever the hash seed."""

import os
import subprocess
import sys

import networkx as nx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helix_kit.cluster import COORDINATOR
from helix_kit.flow import SINK, SOURCE, Flow, max_flow


def random_graph(data):
    """Layers of nodes, each linked to some of the next layer, with random whole capacities."""
    widths = data.draw(st.lists(st.integers(1, 3), min_size=1, max_size=3))
    graph = nx.DiGraph()
    graph.add_nodes_from([SOURCE, SINK])
    capacity = st.integers(0, 5000)
    before = [(SOURCE, COORDINATOR)]
    for layer, width in enumerate(widths):
        names = [f"n{layer}-{i}" for i in range(width)]
        for name in names:
            graph.add_edge((name, "in"), (name, "out"), capacity=data.draw(capacity), edge=(name, name))
            for vertex, source in before:
                if data.draw(st.booleans()):
                    graph.add_edge(vertex, (name, "in"), capacity=data.draw(capacity), edge=(source, name))
        before = [((name, "out"), name) for name in names]
    for vertex, source in before:
        graph.add_edge(vertex, SINK, capacity=data.draw(capacity), edge=(source, COORDINATOR))
    return graph


@given(st.data())
def test_flow_is_conserved_and_equals_its_cut(data):
    """Weak duality: no flow exceeds any cut, so a flow that equals one is maximal."""
    graph = random_graph(data)
    flow = max_flow(graph)
    assert flow.tokens_per_s == pytest.approx(sum(flow.capacities[edge] for edge in flow.min_cut))
    cut = graph.copy()
    cut.remove_edges_from([(a, b) for a, b, edge in graph.edges(data="edge") if edge in flow.min_cut])
    assert not nx.has_path(cut, SOURCE, SINK)
    assert all(0 < amount <= flow.capacities[edge] for edge, amount in flow.edges.items())
    names = {a for a, b in flow.capacities if a == b}
    for name in names:
        leaving = sum(f for (source, _), f in flow.edges.items() if source == name)
        assert leaving == pytest.approx(flow.through(name))
        assert flow.through(name) <= flow.capacities[name, name]
    assert flow.tokens_per_s == pytest.approx(sum(f for (a, _), f in flow.edges.items() if a == COORDINATOR))


def test_utilisation_of_nodes_and_links():
    edges = {("coordinator", "a"): 3.0, ("a", "coordinator"): 3.0}
    capacities = {("coordinator", "a"): 12.0, ("a", "a"): 4.0, ("a", "coordinator"): 3.0, ("b", "b"): 0.0}
    flow = Flow(3.0, edges, capacities, (("a", "coordinator"),))
    assert [flow.utilisation(e) for e in capacities] == [0.25, 0.75, 1.0, 0.0]
    assert flow.through("b") == 0


def test_flow_does_not_depend_on_the_hash_seed():
    code = (
        "import helix_kit as hk; p = hk.plan('single24', 'llama2-70b', method='swarm', flow_split='any', prove=False);"
        "print(p.flow)"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    }  # fmt: skip
    assert len(outputs) == 1
