"""The flow network of a placement: max flow, min cut, and the flow split into pipelines (paper section 4.2).

Every machine becomes an edge ``(name, "in") -> (name, "out")`` whose capacity is the tokens/s it can serve with
the layers it holds; every usable link becomes an edge whose capacity is bandwidth / bytes per token; the
coordinator is source and sink. Capacities are whole milli-tokens/s, since float capacities break push-relabel.

>>> from helix_kit.cluster import Cluster
>>> from helix_kit.model import Model
>>> cluster = Cluster.model_validate({"name": "pair", "nodes": [{"gpu": "T4", "count": 2}]})
>>> placement = {"T4-0": (0, 40), "T4-1": (40, 80)}
>>> graph = build_flow_graph(cluster, Model.preset("llama2-70b"), placement, {"T4-0": 12.0, "T4-1": 9.5})
>>> flow = max_flow(graph)
>>> flow.tokens_per_s, flow.min_cut
(9.5, (('T4-1', 'T4-1'),))
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import networkx as nx

from helix_kit.cluster import COORDINATOR, Cluster
from helix_kit.model import Model

Placement = Mapping[str, tuple[int, int]]
"""Node name -> layer range [start, end)."""
Edge = tuple[str, str]
"""A link by its ends (``coordinator`` for source and sink); ``(node, node)`` is a node's own capacity."""

SOURCE, SINK = (COORDINATOR, "out"), (COORDINATOR, "in")
MILLI = 1000


class Stage(NamedTuple):
    """A node and the layers [start, end) that it runs for one request."""

    node: str
    start: int
    end: int


Pipeline = tuple[Stage, ...]
"""The ordered stages of one request; together they cover layers 0..L once (invariant 4)."""


@dataclass(frozen=True)
class Flow:
    """A maximum flow in tokens/s: `edges` holds only positive flows, in the graph's order."""

    tokens_per_s: float
    edges: dict[Edge, float]
    """Flow on each link used."""
    capacities: dict[Edge, float]
    """Capacity of every link and node of the graph; a node is the edge (node, node)."""
    min_cut: tuple[Edge, ...]
    """The links and nodes whose capacity adds up to the flow: what limits it."""

    def through(self, node: str) -> float:
        """Flow through a node, tokens/s."""
        return sum(f for (_, target), f in self.edges.items() if target == node)

    def utilisation(self, edge: Edge) -> float:
        """Flow / capacity of a link, or of a node given as (node, node)."""
        flow = self.through(edge[0]) if edge[0] == edge[1] else self.edges.get(edge, 0.0)
        return flow / self.capacities[edge] if self.capacities[edge] else 0.0


def can_follow(end: int, next_range: tuple[int, int], partial_inference: bool = True) -> bool:
    """Whether a request that has finished layers [0, end) may go on at a node that holds `next_range`."""
    start, stop = next_range
    return start <= end < stop if partial_inference else start == end


def link_capacity_tokens_per_s(cluster: Cluster, model: Model, source: str, target: str) -> float:
    """Tokens/s that fit on a link: activations between nodes, bare token ids to and from the coordinator."""
    size = model.token_bytes if COORDINATOR in (source, target) else model.link_bytes_per_token
    return cluster.link(source, target).bytes_per_s / size


def build_flow_graph(
    cluster: Cluster,
    model: Model,
    placement: Placement,
    throughput_tokens_per_s: Mapping[str, float],
    *,
    partial_inference: bool = True,
    links: Iterable[Edge] | None = None,
) -> nx.DiGraph:
    """The node-split flow network of `placement`.

    Parameters
    ----------
    throughput_tokens_per_s
        Node name -> tokens/s with the layers it holds.
    links
        Usable links (names, ``coordinator`` for both ends of the path); None: every link that fits.

    Edges carry ``capacity`` in whole milli-tokens/s and ``edge``, the pair of names it stands for.
    """
    nic = cluster.network.nic_gbps * 1e9 / 8 / model.link_bytes_per_token
    nic_tokens = cluster.network.nic_gbps * 1e9 / 8 / model.token_bytes
    allowed = None if links is None else set(links)
    held = {n.name: placement[n.name] for n in cluster.nodes if n.name in placement}

    def successors(source: str) -> list[str]:
        if source == COORDINATOR:
            return [t for t, span in held.items() if span[0] == 0]
        end = held[source][1]
        targets = [t for t, span in held.items() if t != source and can_follow(end, span, partial_inference)]
        return targets + ([COORDINATOR] if end == model.num_layers else [])

    pairs = [(s, t) for s in [COORDINATOR, *held] for t in successors(s) if allowed is None or (s, t) in allowed]
    feeds: dict[str, set[str]] = {name: set() for name in [COORDINATOR, *held]}
    drains: dict[str, set[str]] = {name: set() for name in [COORDINATOR, *held]}
    for source, target in pairs:
        feeds[target].add(source)
        drains[source].add(target)
    graph = nx.DiGraph()
    graph.add_nodes_from([SOURCE, SINK])
    for name in held:
        # The network card carries bare token ids only where the coordinator is the sole neighbour.
        card_in = nic_tokens if feeds[name] == {COORDINATOR} else nic
        card_out = nic_tokens if drains[name] == {COORDINATOR} else nic
        capacity = min(throughput_tokens_per_s[name], card_in, card_out)
        graph.add_edge((name, "in"), (name, "out"), capacity=int(capacity * MILLI), edge=(name, name))
    for source, target in pairs:
        capacity = int(link_capacity_tokens_per_s(cluster, model, source, target) * MILLI)
        graph.add_edge((source, "out"), (target, "in"), capacity=capacity, edge=(source, target))
    return graph


def max_flow(graph: nx.DiGraph) -> Flow:
    """A maximum flow of a graph from `build_flow_graph`, with its min cut nearest the source."""
    # Whole numbers as node ids: networkx iterates over sets, and the order of strings in them changes with
    # PYTHONHASHSEED; results must not.
    ids = {node: index for index, node in enumerate(graph.nodes)}
    numbered = nx.DiGraph()
    numbered.add_nodes_from(ids.values())
    for source, target, capacity in graph.edges(data="capacity"):
        numbered.add_edge(ids[source], ids[target], capacity=capacity)
    value, flows = nx.maximum_flow(numbered, ids[SOURCE], ids[SINK])
    residual = nx.DiGraph()
    residual.add_nodes_from(ids.values())
    for source, target, capacity in numbered.edges(data="capacity"):
        if flows[source][target] < capacity:
            residual.add_edge(source, target)
        if flows[source][target] > 0:
            residual.add_edge(target, source)
    reachable = nx.descendants(residual, ids[SOURCE]) | {ids[SOURCE]}
    edges, capacities, cut = {}, {}, []
    for source, target, data in graph.edges(data=True):
        a, b, name = ids[source], ids[target], data["edge"]
        capacities[name] = data["capacity"] / MILLI
        if flows[a][b] > 0 and name[0] != name[1]:
            edges[name] = flows[a][b] / MILLI
        if a in reachable and b not in reachable:
            cut.append(name)
    return Flow(value / MILLI, edges, capacities, tuple(cut))


def decompose(flow: Flow, placement: Placement) -> list[tuple[Pipeline, float]]:
    """The flow as pipelines with their tokens/s, largest first; the rates add up to the flow's value.

    Every step takes the widest path that is left, so there are at most as many pipelines as links.
    """
    left = {edge: round(f * MILLI) for edge, f in flow.edges.items()}
    # Layer ranges only move forward, so ends in increasing order are a topological order.
    order = sorted(placement, key=lambda n: (placement[n][1], n))
    pipelines: list[tuple[Pipeline, float]] = []
    while True:
        widest: dict[str, tuple[int, str]] = {}
        into: dict[str, list[str]] = {}
        for (source, target), amount in left.items():
            if amount > 0:
                into.setdefault(target, []).append(source)
        for node in [*order, COORDINATOR]:
            for source in into.get(node, []):
                amount = left[source, node]
                if source != COORDINATOR:
                    amount = min(amount, widest.get(source, (0, ""))[0])
                if amount > widest.get(node, (0, ""))[0]:
                    widest[node] = (amount, source)
        if COORDINATOR not in widest:
            break
        amount, node = widest[COORDINATOR]
        path = [COORDINATOR, node]
        while node != COORDINATOR:
            node = widest[node][1]
            path.append(node)
        path.reverse()
        for source, target in pairwise(path):
            left[source, target] -= amount
        pipelines.append((pipeline_of(path[1:-1], placement), amount / MILLI))
    return sorted(pipelines, key=lambda p: -p[1])


def pipeline_of(nodes: Iterable[str], placement: Placement) -> Pipeline:
    """The stages of a path of nodes: each runs what it holds beyond the layers already done."""
    stages, done = [], 0
    for node in nodes:
        stages.append(Stage(node, done, placement[node][1]))
        done = placement[node][1]
    return tuple(stages)
