"""The maximum flow of a placement's network, and the minimum cut that limits it.

>>> from helix_kit.cluster import Cluster
>>> from helix_kit.flow.network import build_flow_graph
>>> from helix_kit.model import Model
>>> cluster = Cluster.model_validate({"name": "pair", "nodes": [{"gpu": "T4", "count": 2}]})
>>> placement = {"T4-0": (0, 40), "T4-1": (40, 80)}
>>> graph = build_flow_graph(cluster, Model.preset("llama2-70b"), placement, {"T4-0": 12.0, "T4-1": 9.5})
>>> flow = max_flow(graph)
>>> flow.tokens_per_s, flow.min_cut
(9.5, (('T4-1', 'T4-1'),))
"""

from __future__ import annotations

from dataclasses import dataclass

import networkx as nx
import numpy as np

from helix_kit._summary import MAX_LISTED, Summarised, number
from helix_kit.flow.large import large_flow
from helix_kit.flow.network import MILLI, SINK, SOURCE, Edge

MANY_EDGES = 5000
"""A network with more edges is solved by `large_flow`. Both solvers find the same value, and may split it otherwise."""


@dataclass(frozen=True, repr=False)
class Flow(Summarised):
    """A maximum flow in tokens/s.

    Attributes
    ----------
    tokens_per_s
        The value of the flow.
    edges
        Flow on each link in use, in the graph's order. Links without flow are left out.
    capacities
        Capacity of every link and node of the graph. A node is the edge (node, node).
    min_cut
        The links and nodes whose capacities add up to the flow: they limit it.

    Examples
    --------
    >>> edges = {("coordinator", "a"): 3.0, ("a", "coordinator"): 3.0}
    >>> flow = Flow(3.0, edges, {("coordinator", "a"): 9.0, ("a", "a"): 3.0, ("a", "coordinator"): 9.0}, (("a", "a"),))
    >>> flow.through("a"), flow.utilisation(("a", "a")), round(flow.utilisation(("coordinator", "a")), 2)
    (3.0, 1.0, 0.33)
    """

    tokens_per_s: float
    edges: dict[Edge, float]
    capacities: dict[Edge, float]
    min_cut: tuple[Edge, ...]

    def _title(self) -> str:
        return f"{number(self.tokens_per_s)} tokens/s"

    def _facts(self) -> dict[str, str]:
        cut = [source if source == target else f"{source} -> {target}" for source, target in self.min_cut[:MAX_LISTED]]
        rest = [f"{len(self.min_cut) - MAX_LISTED} more"] if len(self.min_cut) > MAX_LISTED else []
        return {"links in use": str(len(self.edges)), "limited by": " + ".join([*cut, *rest]) or "nothing"}

    def through(self, node: str) -> float:
        """Flow through a node.

        Parameters
        ----------
        node
            Name of the node.

        Returns
        -------
        float
            Tokens/s that enter it.
        """
        return sum(f for (_, target), f in self.edges.items() if target == node)

    def utilisation(self, edge: Edge) -> float:
        """Flow / capacity of a link or node.

        Parameters
        ----------
        edge
            A link by its ends, or (node, node) for a node.

        Returns
        -------
        float
            From 0 to 1; 0 where the capacity is 0.
        """
        flow = self.through(edge[0]) if edge[0] == edge[1] else self.edges.get(edge, 0.0)
        return flow / self.capacities[edge] if self.capacities[edge] else 0.0


def max_flow(graph: nx.DiGraph) -> Flow:
    """A maximum flow, with the minimum cut nearest the source.

    Parameters
    ----------
    graph
        A network from `build_flow_graph`, capacities in whole milli-tokens/s.

    Returns
    -------
    Flow
        In tokens/s. The same graph always gives the same flow.

    Examples
    --------
    >>> graph = nx.DiGraph()
    >>> graph.add_edge(SOURCE, ("a", "in"), capacity=4000, edge=("coordinator", "a"))
    >>> graph.add_edge(("a", "in"), ("a", "out"), capacity=2500, edge=("a", "a"))
    >>> graph.add_edge(("a", "out"), SINK, capacity=9000, edge=("a", "coordinator"))
    >>> max_flow(graph).tokens_per_s
    2.5
    """
    # networkx iterates over sets of vertices. The order of strings in a set changes with PYTHONHASHSEED, that of whole
    # numbers does not, so whole numbers stand for the vertices.
    ids = {node: index for index, node in enumerate(graph.nodes)}
    numbered = nx.DiGraph()
    numbered.add_nodes_from(ids.values())
    for source, target, capacity in graph.edges(data="capacity"):
        numbered.add_edge(ids[source], ids[target], capacity=capacity)
    flows = _flows(numbered, ids[SOURCE], ids[SINK])
    value = sum(flows[a, b] for a, b in numbered.out_edges(ids[SOURCE]))
    residual = nx.DiGraph()
    residual.add_nodes_from(ids.values())
    for source, target, capacity in numbered.edges(data="capacity"):
        if flows[source, target] < capacity:
            residual.add_edge(source, target)
        if flows[source, target] > 0:
            residual.add_edge(target, source)
    reachable = nx.descendants(residual, ids[SOURCE]) | {ids[SOURCE]}
    edges, capacities, cut = {}, {}, []
    for source, target, data in graph.edges(data=True):
        a, b, name = ids[source], ids[target], data["edge"]
        capacities[name] = data["capacity"] / MILLI
        if flows[a, b] > 0 and name[0] != name[1]:
            edges[name] = flows[a, b] / MILLI
        if a in reachable and b not in reachable:
            cut.append(name)
    return Flow(value / MILLI, edges, capacities, tuple(cut))


def _flows(graph: nx.DiGraph, source: int, sink: int) -> dict[tuple[int, int], int]:
    """A maximum flow on each edge of a network whose vertices are numbered from 0."""
    if graph.number_of_edges() <= MANY_EDGES:
        _, flows = nx.maximum_flow(graph, source, sink)
        return {(a, b): flows[a][b] for a, b in graph.edges}
    edges = np.array(list(graph.edges(data="capacity")), np.int64)
    tails, heads, capacity = edges.T
    found = large_flow(tails, heads, capacity, graph.number_of_nodes(), source, sink)
    return {(a, b): f for a, b, f in zip(tails.tolist(), heads.tolist(), found.tolist())}


__all__ = ["Flow", "max_flow"]
